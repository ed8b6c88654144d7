"""How sure is an answer? From the log-probs of its tokens, and from how many samples agree.

`answer_confidence` is the geometric mean probability of the tokens inside `<answer>` (sequence likelihood, normalised by
length): in (0, 1], under the temperature that they were sampled at, given the thought before them. `thought_confidence`
is the same over all that the policy said in an episode, forced openings left out; a model that reads before it concludes
shows its doubt there rather than in the answer, which follows from what it wrote (compare DeepConf, arXiv 2508.15260,
which averages over the whole trace and over its worst part; here the whole trace). Both are None where the policy gives
no log-probs.

How well they are calibrated is measured, not assumed: `evals/calibration.py`.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..core.nouns import Completion
from ..core.policy import Policy

if TYPE_CHECKING:
    from ..core.trajectory import Trajectory


def answer_confidence(completion: Completion, policy: Policy, said: str | None = None) -> float | None:
    """Geometric mean probability of the answer's tokens; None without log-probs, or where the answer is not found.

    Args:
        said: the answer, where the completion may open with it (a forced one) instead of writing `<answer>`.
    """
    span = _answer_span(completion.text) or _span_of(completion.text, said or "")
    if span is None:
        return None
    return mean_probability(token_span(completion, policy, *span))


def thought_confidence(trajectory: Trajectory) -> float | None:
    """Geometric mean probability of every token that the policy sampled in the episode; None without log-probs."""
    said = [t.completion for t in trajectory.turns if not t.completion.forced]
    if not said or any(len(c.logprobs) != len(c.token_ids) for c in said):
        return None
    return mean_probability([p for c in said for p in c.logprobs])


def mean_probability(logprobs: Sequence[float]) -> float | None:
    """exp of the mean of log-probs (nats), to four decimals (the rest is float noise); None of none."""
    return round(math.exp(min(0.0, sum(logprobs) / len(logprobs))), 4) if logprobs else None


def token_span(completion: Completion, policy: Policy, begin: int, end: int) -> Sequence[float]:
    """The log-probs of the tokens that write the characters [begin, end) of the completion's text; empty where tokens and
    text do not match."""
    ids = completion.token_ids
    if len(completion.logprobs) != len(ids) or not completion.exact:
        return ()
    decode = policy.renderer.decode
    if not decode(ids).startswith(completion.text):
        return ()
    # Lengths of decoded prefixes grow with the prefix: two searches instead of a decoding a token.
    first = bisect_right(range(len(ids) + 1), begin, key=lambda i: len(decode(ids[:i]))) - 1
    last = bisect_left(range(len(ids) + 1), end, key=lambda i: len(decode(ids[:i])))
    return completion.logprobs[max(0, first) : last]


def weights(confidences: Iterable[float | None]) -> list[float]:
    """Confidences as weights of votes: where one is not known, all count the same."""
    known = list(confidences)
    return [1.0] * len(known) if any(c is None for c in known) else [float(c or 0.0) for c in known]


def _answer_span(text: str) -> tuple[int, int] | None:
    """Where the text of `<answer>` stands, behind the thought."""
    behind = text.find("</think>") + 1  # 0 where there is no thought
    begin = text.find("<answer>", behind)
    end = text.find("</answer>", begin)
    if begin < 0 or end < 0:
        return None
    return _inner(text, begin + len("<answer>"), end)


def _span_of(text: str, said: str) -> tuple[int, int] | None:
    begin = text.find(said)
    return None if begin < 0 or not said else (begin, begin + len(said))


def _inner(text: str, begin: int, end: int) -> tuple[int, int] | None:
    """The same without spaces around it."""
    inside = text[begin:end]
    begin += len(inside) - len(inside.lstrip())
    end = begin + len(inside.strip())
    return (begin, end) if end > begin else None

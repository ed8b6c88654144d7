"""Judges: how good is a candidate's answer, in [0, 1]? What best-of-n chooses by.

sure: how sure the policy was of all it said. evidence: it answers again from frames of the cited clips alone; the same
answer counts as much as it is sure, another one against. look: the same by looking again with the tools (`look.py`).
yes-no: the policy is shown the cited frames and the answer, and asked whether it is right; its probability of "yes". An
external judge (another model, a rule) is any object with `name` and `score`, given to `BestOf(external=...)`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from ...core.clip import merge_clips
from ...core.nouns import Message
from ...core.trajectory import Trajectory
from ..confidence import mean_probability, thought_confidence
from .bench import Bench
from .look import cited_only, look_again, times_in
from .purse import Purse
from .strategy import Outcome
from .tally import same

FRAMES = 8
VERDICT = "\nProposed answer: {answer}\nDo these frames prove that the proposed answer is right? Answer yes or no."
OPENING = "<think></think>\n<answer>"
"""Straight to the word that matters."""


class Judge(Protocol):
    """Whoever can say how good an answer is."""

    name: str

    async def score(self, bench: Bench, purse: Purse, seed: int, candidate: Outcome) -> float:
        """In [0, 1]. May raise `Spent`: the candidate then counts as not judged."""
        ...


Score = Callable[[Bench, Purse, int, Outcome], Awaitable[float]]


async def sure(bench: Bench, purse: Purse, seed: int, candidate: Outcome) -> float:
    thought = candidate.trajectory and thought_confidence(candidate.trajectory)
    return (candidate.answer.confidence if thought is None else thought) or 0.0


async def evidence(bench: Bench, purse: Purse, seed: int, candidate: Outcome) -> float:
    return _agreement(bench, candidate, await cited_only(bench, purse, seed, candidate, FRAMES))


async def look(bench: Bench, purse: Purse, seed: int, candidate: Outcome) -> float:
    return _agreement(bench, candidate, await look_again(bench, purse, seed, candidate))


async def yes_no(bench: Bench, purse: Purse, seed: int, candidate: Outcome) -> float:
    frames = await bench.frames(purse, times_in(merge_clips(candidate.answer.evidence), FRAMES))
    verdict = VERDICT.format(answer=candidate.answer.text)
    messages: tuple[Message, ...] = bench.first_messages(frames, verdict)
    completion = (await bench.say(purse, messages, opening=OPENING, tokens=4, seed=seed)).turns[-1].completion
    said = completion.text.strip().lower()
    p = mean_probability(completion.logprobs[:1])
    if said.startswith("yes"):
        return 1.0 if p is None else p
    return (0.0 if p is None else 1.0 - p) if said.startswith("no") else 0.5


def _agreement(bench: Bench, candidate: Outcome, again: Trajectory | None) -> float:
    """Half where nothing can be said, more for the same answer, less for another."""
    if again is None or again.answer is None:
        return 0.25  # an answer that cites nothing is worth less than one whose citation could not be read
    if bench.task.choices and again.answer.choice is None:
        return 0.5
    p = again.answer.confidence
    p = 1.0 if p is None else p
    return 0.5 + 0.5 * p if same(candidate.answer, again.answer, bench.task.choices) else 0.5 - 0.5 * p


JUDGES: dict[str, Score] = {"evidence": evidence, "look": look, "yes-no": yes_no, "sure": sure}

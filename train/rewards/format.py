"""Is everything the model said in the form that the prompts ask for? The only reward that reads the model's own text.

    <think>...</think>                   then either one or more     <tool_call>...</tool_call>
                                         or exactly one              <answer>...</answer> <evidence>...</evidence>

Published scorers count tags: a `<tool_response>` that the model made up pays (LongVT, ParaVT), tags may be repeated,
trailing text is allowed (Video-RTS `re.match`). Here a turn is read from its first to its last character, and
whatever only the environment may write makes it malformed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...core.trajectory import Trajectory, Turn
from .context import RewardContext

_OPEN = {
    name: re.compile(rf"<\s*{name}\b[^>]*>", re.IGNORECASE)
    for name in ("think", "tool_call", "answer", "evidence")
}  # fmt: skip
_CLOSE = {name: re.compile(rf"<\s*/\s*{name}\s*>", re.IGNORECASE) for name in _OPEN}
# Atomic or possessive where a failure could be retried at every character: models write long texts. Not (?:(?!x).)*+, which
# matches nothing in Python 3.11.2 (it does in 3.11.7).
_THOUGHT = re.compile(r"\s*+(?:<think>)?+(?P<thought>.*?)</think>", re.S)
_CALLS = re.compile(r"\s*+(?:<tool_call>(?>(?:(?!</tool_call>).)*)</tool_call>\s*+)+", re.S)
_ANSWER = re.compile(
    r"\s*+<answer>(?P<answer>(?>(?:(?!</answer>).)*))</answer>\s*+(?:<evidence>(?>(?:(?!</evidence>).)*)</evidence>\s*+)?",
    re.S,
)
_ONLY_THE_ENVIRONMENT = re.compile(
    r"<\s*/?\s*(?:tool_response|tool_result|observation|information)\b"
    r"|<\|(?:im_start|im_end|image_pad|video_pad|vision_start|vision_end|endoftext)\|>",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatReward:
    """1 where every turn that the model wrote is well formed and it answered by itself, else 0.

    A turn is a thought, then calls or one answer, and nothing else. Source: TimeSearch-R
    `reward/v7.py::multiturn_format_check`, here with every tag at most once where it may stand once. A forced answer, a
    turn that had to be repeated and tags that only the environment writes are malformed. `needs_thought=False` is for
    models that do not think aloud.
    """

    needs_thought: bool = True
    name: str = "format"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        spoken = [turn for turn in trajectory.turns if not turn.completion.forced]
        ended = trajectory.answer is not None and trajectory.stop_reason.value == "answered"
        if not spoken or not ended or spoken[-1] is not trajectory.turns[-1]:
            return 0.0
        last = len(spoken) - 1
        return float(all(well_formed(turn, i == last, self.needs_thought) for i, turn in enumerate(spoken)))


def well_formed(turn: Turn, is_last: bool, needs_thought: bool = True) -> bool:
    """Is the turn a thought and then (in the last turn) an answer or (in any other) calls? At most one thought."""
    text = turn.completion.text
    if _ONLY_THE_ENVIRONMENT.search(text):
        return False
    head = _THOUGHT.match(text)
    if head is None:
        if needs_thought or _OPEN["think"].search(text):
            return False
        rest = text
    else:
        # A thought may not hold tags: what stands in it never counts, and a parser that reads it would be fooled.
        if any(p.search(head["thought"]) for p in (*_OPEN.values(), *_CLOSE.values())):
            return False
        rest = text[head.end() :]
    if _OPEN["think"].search(rest) or _CLOSE["think"].search(rest):
        return False
    body = (_ANSWER if is_last else _CALLS).fullmatch(rest)
    if body is None or (is_last and not body["answer"].strip()):
        return False
    return _tags_in_place(rest, is_last)


def _tags_in_place(rest: str, is_last: bool) -> bool:
    """No tag of one kind inside another, none twice where it stands once, every opening closed."""
    opened = {name: len(p.findall(rest)) for name, p in _OPEN.items()}
    closed = {name: len(p.findall(rest)) for name, p in _CLOSE.items()}
    if opened != closed:
        return False
    if is_last:
        return opened["answer"] == 1 and opened["evidence"] <= 1 and opened["tool_call"] == 0
    return opened["answer"] == 0 and opened["evidence"] == 0

"""Cost: what a question cost, in the currencies that a bill can be written in.

TOKENS is the default: all tokens that the model really computed, prompt and sampled ones, where every question starts with
empty caches. On one model they stand for the arithmetic (about two operations a parameter and token), they fall when a
prefix is shared, and they do not depend on the machine. They hide two things, so FRAMES stand beside them: how many frames
were decoded and went through the vision tower; and SECONDS, since a sampled token waits for the one before it, which a
prompt's do not. Seconds depend on the machine and on what else runs there.
"""

from __future__ import annotations

from enum import Enum

from .results import TaskResult


class Cost(str, Enum):
    """Of one question; a cell of the grid has the mean."""

    TOKENS = "tokens"
    FRAMES = "frames"
    SAMPLED = "sampled"
    PREFILLED = "prefilled"
    CALLS = "calls"
    SECONDS = "seconds"

    @property
    def label(self) -> str:
        return _LABELS[self]

    def of(self, result: TaskResult) -> float:
        match self:
            case Cost.TOKENS:
                return result.prefill_tokens + result.sampled_tokens
            case Cost.FRAMES:
                return result.frames
            case Cost.SAMPLED:
                return result.sampled_tokens
            case Cost.PREFILLED:
                return result.prefill_tokens
            case Cost.CALLS:
                return result.model_calls
            case Cost.SECONDS:
                return result.wall_s


COUNTED = tuple(c for c in Cost if c is not Cost.SECONDS)
"""Those that are counted, and so are the same on every machine."""

_LABELS = {
    Cost.TOKENS: "tokens computed per question",
    Cost.FRAMES: "frames shown per question",
    Cost.SAMPLED: "tokens sampled per question",
    Cost.PREFILLED: "prompt tokens computed per question",
    Cost.CALLS: "model calls per question",
    Cost.SECONDS: "seconds per question",
}

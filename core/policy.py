"""The policy contract: tokens in, tokens out, many requests at once.

An agent awaits `generate`; it knows nothing of batches, caches or servers. Whoever implements `Policy` must return one
completion per request, in order, and must not let one request's failure touch another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .nouns import Completion, Frame, Message, ToolCall, ToolSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How to sample. Temperature 0 is greedy. A request's own `seed` drives its random numbers.

    Raises:
        ValueError: `top_p` leaves nothing to draw from, or more than all.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    timeout_s: float | None = None
    """Seconds after which the policy must come back with what it has (`FinishReason.TIMEOUT`)."""

    def __post_init__(self) -> None:
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1; got {self.top_p}")


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateRequest:
    """One completion to make.

    `token_ids` is the whole context, `frames` its images in order (as many as image placeholders groups);
    `messages` says the same in text for policies that only speak chat. `session` names the trajectory, so that an
    engine can keep its attention cache between turns.
    """

    session: str
    token_ids: tuple[int, ...]
    frames: tuple[Frame, ...]
    messages: tuple[Message, ...]
    sampling: Sampling
    tools: tuple[ToolSpec, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """Tokens to append to a context, and the frames whose placeholders stand in them, in order."""

    token_ids: tuple[int, ...]
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """What a completion says. `answer`, `evidence` and `boxes` are the raw insides of `<answer>`, `<evidence>` and `<box>`.

    `error` is for the model: what was malformed and what is expected. A completion with neither call nor answer has one.
    """

    thought: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    answer: str | None = None
    evidence: str | None = None
    boxes: str | None = None
    error: str | None = None


class Renderer(Protocol):
    """Text to tokens and back, for one model family. History is extended, never decoded and encoded again."""

    def start(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Rendered:
        """The first context, up to and including the opening of the assistant's turn."""
        ...

    def extend(self, completion_ids: Sequence[int], messages: Sequence[Message]) -> Rendered:
        """What to append after a completion: the closing of the turn where the completion lacks it, the new messages
        (tool responses, a reminder), and the opening of the next assistant's turn."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokens of a piece of assistant text, special tokens recognised (for scripted and forced text)."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str: ...

    def parse(self, text: str, turn_index: int) -> Parsed: ...

    def frame_tokens(self, frame: Frame) -> int:
        """How many image placeholder tokens the frame takes."""
        ...


class Policy(Protocol):
    """A Video-LMM behind one call."""

    @property
    def name(self) -> str: ...

    @property
    def renderer(self) -> Renderer: ...

    @property
    def exact(self) -> bool:
        """True when tokens and log-probs are those really sampled; RL refuses trajectories where it is False."""
        ...

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]: ...

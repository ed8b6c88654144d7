"""The nouns: what travels between the rooms of the house.

Frozen, keyword-only, slotted dataclasses. Seconds are floats ending in `_s`. Nothing here holds pixels: a `Frame` is a
reference whose pixels live in the frame store, so a trajectory is small, serialisable and exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from .box import Box
from .clip import Clip

__all__ = [
    "Answer",
    "Box",
    "Clip",
    "Completion",
    "FinishReason",
    "Frame",
    "Message",
    "Observation",
    "Part",
    "Role",
    "StopReason",
    "Task",
    "ToolCall",
    "ToolSpec",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A decoded frame by reference; the frame store gives its pixels (H, W, 3, uint8, upright RGB) for `sha256`.

    `timestamp_s` is the presentation time at which the frame appears; it stays on screen until the next one.
    """

    video_id: str
    timestamp_s: float
    sha256: str
    width: int
    height: int
    box: tuple[float, float, float, float] | None = None
    """Which part of the picture it shows (left, top, right, bottom as shares of it); None for all of it."""


Part = str | Frame
"""A piece of a message. A renderer writes the timestamp of a `Frame` before its image tokens, as its family does."""

Role = Literal["system", "user", "assistant", "tool"]


def parts_text(parts: tuple[Part, ...]) -> str:
    """What the parts say in plain text, a frame as its timestamp."""
    return "".join(p if isinstance(p, str) else f"<{p.timestamp_s:.1f} seconds>" for p in parts)


def parts_frames(parts: tuple[Part, ...]) -> tuple[Frame, ...]:
    """The frames among the parts, in order."""
    return tuple(p for p in parts if isinstance(p, Frame))


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One entry of a conversation, before any tokenizer has seen it."""

    role: Role
    content: tuple[Part, ...]

    @property
    def text(self) -> str:
        return parts_text(self.content)

    @property
    def frames(self) -> tuple[Frame, ...]:
        return parts_frames(self.content)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolSpec:
    """What a policy is told of a tool: its name, what it does, and the JSON schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A call as the model wrote it. `arguments_json` is raw: parsing it is the tool's door, and may fail there."""

    id: str
    name: str
    arguments_json: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What a tool gave back. Text and frames stand in the order in which the model reads them.

    `clips` are the stretches of video that the tool looked at or named. `error` is set when the call could not be done;
    then `content` says for the model what was wrong and what is allowed.
    """

    tool_call_id: str
    content: tuple[Part, ...]
    clips: tuple[Clip, ...] = ()
    error: str | None = None
    wall_s: float = 0.0

    @property
    def text(self) -> str:
        return parts_text(self.content)

    @property
    def frames(self) -> tuple[Frame, ...]:
        return parts_frames(self.content)


class FinishReason(str, Enum):
    """Why one call of the policy ended."""

    STOP = "stop"
    LENGTH = "length"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One call of the policy. `logprobs[i]` is the log-probability (nats) of `token_ids[i]` when it was sampled, under
    the temperature of the request and the whole vocabulary; empty where the policy cannot tell."""

    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...] = ()
    finish_reason: FinishReason = FinishReason.STOP
    policy_version: int = 0
    prefill_tokens: int = 0
    reused_tokens: int = 0
    wall_s: float = 0.0
    forced: bool = False
    """True when the tokens were put there by the agent (a forced opening of an answer): never trained on."""
    exact: bool = True
    """False where these are not known to be the tokens and log-probs that were sampled after exactly this context."""


class StopReason(str, Enum):
    """Why a trajectory ended; it has exactly one."""

    ANSWERED = "answered"
    MAX_TURNS = "max_turns"
    MAX_TOOL_CALLS = "max_tool_calls"
    MAX_FRAMES = "max_frames"
    CONTEXT_FULL = "context_full"
    LENGTH = "length"
    PARSE_ERROR = "parse_error"
    TIMEOUT = "timeout"
    ERROR = "error"

    @property
    def is_truncated(self) -> bool:
        """A limit, not the model, ended it."""
        return self not in (StopReason.ANSWERED, StopReason.PARSE_ERROR, StopReason.ERROR)

    @property
    def is_error(self) -> bool:
        return self is StopReason.ERROR


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The final word. `choice` is the index into the task's choices, or None; `evidence` are the cited clips, `boxes` the
    cited places on the screen."""

    text: str
    choice: int | None = None
    evidence: tuple[Clip, ...] = ()
    confidence: float | None = None
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A question about one video. `video` is a path (relative to the task file, or absolute); `answer` is None when
    nobody knows it; `evidence` are the gold clips, in the id of the video."""

    id: str
    question: str
    video: str
    choices: tuple[str, ...] = ()
    answer: str | None = None
    evidence: tuple[Clip, ...] = ()
    kind: str = "open"
    source: str = "user"
    meta: dict[str, str] = field(default_factory=dict)

"""Events: what `VideoAgent.astream` yields while an episode runs, in order. `turn` counts calls of the policy from 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.nouns import Answer, Frame, Observation, StopReason, ToolCall

if TYPE_CHECKING:
    from ..core.trajectory import Trajectory
    from .video_agent import Result


@dataclass(frozen=True, kw_only=True, slots=True)
class Indexing:
    """The video's index is being built; `share` of it is done, in [0, 1]."""

    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Skimmed:
    """The first look at the whole video."""

    frames: tuple[Frame, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Thought:
    """The model spoke: its thought, and all of what it said."""

    turn: int
    thought: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Called:
    """A tool call starts."""

    turn: int
    call: ToolCall


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """A tool call came back; `observation.tool_call_id` says which."""

    turn: int
    observation: Observation


@dataclass(frozen=True, kw_only=True, slots=True)
class Misread:
    """The turn could not be read; the model was told why."""

    turn: int
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Forced:
    """A limit was reached: the model must answer now."""

    reason: StopReason


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """The final word."""

    answer: Answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """A test-time scaling strategy did something: which one, what, and after how many seconds."""

    by: str
    text: str
    at_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The end of the episode, always last. `result` is None when it ended in an error (`trajectory.error` says which)."""

    trajectory: Trajectory
    result: Result | None


Event = Indexing | Skimmed | Thought | Called | Observed | Misread | Forced | Answered | Decided | Finished

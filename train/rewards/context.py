"""What a reward may know, and what a reward is.

A reward is a function of a trajectory (with its task: the gold answer and evidence) and of a `RewardContext`: the few
things that a trajectory does not hold. It reads the environment's log (`Observation`s, `Usage`) and the sampled
tokens; only `format` reads the model's text. It draws nothing at random, touches no file and no model: a judge or a
verifier is asked before, by `verify.with_verdicts`, and its verdict stands in the context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ...core.box import Box
from ...core.errors import PlayheadError
from ...core.nouns import Answer, Task
from ...core.scoring import is_right
from ...core.trajectory import Trajectory


class RewardError(PlayheadError, ValueError):
    """A reward that cannot be computed from what it was given; the message says what is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """How often a task's rollouts are right with the frames in order, and with the same frames shuffled (`contrast.py`)."""

    ordered: float
    shuffled: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardContext:
    """What a reward may need beyond the trajectory. Everything is optional; a reward that misses its part says so.

    Raises:
        ValueError: a share outside [0, 1], or a duration that is not positive.
    """

    duration_s: float | None = None
    """Of the whole video."""
    progress: float = 1.0
    """How far training is, in [0, 1]; 1 (the strictest) outside of training."""
    verified: float | None = None
    """Score in [0, 1] of the answer that a verifier gave from the looked-at clips alone."""
    judged: float | None = None
    """Score in [0, 1] that a judge gave to the answer."""
    solved_without_tools: float | None = None
    """Pass rate in [0, 1] of the same task, asked of the same model without tools."""
    contrast: Contrast | None = None
    gold_boxes: tuple[Box, ...] = ()
    """Where the answer is seen; where there are none, those that the task itself tells (`core.scoring.gold_boxes`)."""

    def __post_init__(self) -> None:
        for name in ("progress", "verified", "judged", "solved_without_tools"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1]; got {value}")
        if self.duration_s is not None and not 0 < self.duration_s < float("inf"):
            raise ValueError(f"duration_s must be a positive number of seconds; got {self.duration_s}")


@runtime_checkable
class Reward(Protocol):
    """One part of a rubric: a name for the logs, and a value for a trajectory.

    What is not asked for scores 0 (an interval where the task has no gold interval): within a group, which shares its
    task, a constant is no advantage.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        """The value, before the weight.

        Raises:
            RewardError: the context lacks what this reward is about.
        """
        ...


def right(task: Task, answer: Answer | None) -> bool:
    """Is the answer right? Intervals from an IoU of 0.5 on. False for a task whose answer nobody knows."""
    known = bool(task.evidence) if task.kind == "when" else task.answer is not None
    return known and is_right(task, answer)

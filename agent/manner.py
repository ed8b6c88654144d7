"""Manner: how one episode differs from the agent's usual one. What a test-time scaling strategy varies, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.budget import Budget

if TYPE_CHECKING:
    from .episode import State


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """None everywhere is the agent as it is.

    `times_s` are looked at first instead of uniform ones; `hint` is written behind the question; `start` is a state to go on
    from (a branch of an earlier episode, see `branch.py`) instead of a fresh one.
    """

    budget: Budget | None = None
    tools: bool = True
    skim_frames: int | None = None
    times_s: tuple[float, ...] | None = None
    temperature: float | None = None
    turn_tokens: int | None = None
    hint: str = ""
    shuffled: bool = False
    """Frames that are shown together come in a wrong order, under right times: what an answer owes to the order of frames."""
    start: State | None = None

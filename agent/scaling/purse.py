"""Purse: what is left of a budget that several runs share, handed out in parts and settled when a part comes back.

Invariant: what was spent plus what is held by open parts never exceeds the limit, for frames, tool calls, sampled tokens
and model calls. Turns and context tokens are limits of every single episode and pass through. Time is one deadline for
all. A part is charged what its runs really spent; the rest of it comes back to the purse, for those that follow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from types import TracebackType
from typing import Self

from ...core.budget import Budget, Usage
from ...core.nouns import StopReason

SUMMED = ("frames", "tool_calls", "sampled_tokens", "model_calls")
"""The limits on the sum over all runs."""
MARGIN = 0.97
"""Share of the time left that a run may plan with: noticing the end takes time too."""
NOTICE_S = 0.3
"""So much of it is kept back in any case, though never more than NOTICE_SHARE: several runs notice it one after another."""
NOTICE_SHARE = 0.3

Least = Mapping[str, int]
"""What a run needs at least to be worth starting, by the names in `SUMMED`."""


class Purse:
    """A budget under way. Belongs to one event loop; parts are context managers that settle when they close."""

    def __init__(
        self, budget: Budget, *, clock: Callable[[], float] = time.monotonic, parent: Purse | None = None
    ) -> None:
        self.budget, self._clock, self._parent = budget, clock, parent
        self._started = clock()
        self._deadline = inf if budget.wall_s is None else self._started + budget.wall_s
        self._spent = Usage()
        self._held: dict[str, float] = dict.fromkeys(SUMMED, 0)

    # Reading it.

    @property
    def usage(self) -> Usage:
        """What was really spent, with the time since the purse was opened."""
        return replace(self._spent, wall_s=self._clock() - self._started)

    @property
    def seconds(self) -> float:
        return self._deadline - self._clock()

    def left(self, name: str) -> float:
        """What nobody has spent or holds, of a limit in `SUMMED`."""
        return self.budget.left(self._spent, name) - self._held[name]

    def affords(self, least: Least) -> int:
        """How many runs that need `least` could still be started."""
        if self.ended is not None:
            return 0
        return int(min([1 << 30, *(self.left(name) // n for name, n in least.items() if n > 0)]))

    @property
    def ended(self) -> StopReason | None:
        """The limit because of which nothing more can be asked of the policy, or None."""
        if self.seconds <= 0:
            return StopReason.TIMEOUT
        if self.left("model_calls") < 1:
            return StopReason.MAX_TURNS
        return StopReason.LENGTH if self.left("sampled_tokens") < 1 else None

    def short_of(self, least: Least) -> StopReason:
        """The limit that keeps a run that needs `least` from starting."""
        reasons = {
            "frames": StopReason.MAX_FRAMES,
            "tool_calls": StopReason.MAX_TOOL_CALLS,
            "sampled_tokens": StopReason.LENGTH,
            "model_calls": StopReason.MAX_TURNS,
        }
        short = next((reasons[name] for name, n in least.items() if self.left(name) < n), StopReason.TIMEOUT)
        return self.ended or short

    # Spending it.

    def part(self, of: int = 1, least: Least | None = None, *, time_share: float = 1.0) -> Purse:
        """One of `of` equal parts of what is left; where that is less than `least`, so much, if there is so much.

        Args:
            time_share: of the time left; parts that are used at the same time may all have all of it.
        """
        limits: dict[str, int | None] = {}
        for name in SUMMED:
            left = self.left(name)
            wanted = max(left // max(1, of), (least or {}).get(name, 0))
            limits[name] = None if left == inf else int(min(left, wanted))
        seconds = None if self._deadline == inf else max(0.0, self.seconds * time_share)
        part = Purse(replace(self.budget, **limits, wall_s=seconds), clock=self._clock, parent=self)
        for name, held in limits.items():
            self._held[name] += held or 0
        return part

    def plan(self) -> Budget:
        """What is left as the budget of one run."""
        limits = {name: None if self.left(name) == inf else int(self.left(name)) for name in SUMMED}
        seconds = None if self._deadline == inf else planned(self.seconds)
        return replace(self.budget, **limits, wall_s=seconds)

    def spend(self, usage: Usage) -> None:
        self._spent = self._spent + usage

    def close(self) -> None:
        """Settle with the purse that this one is a part of."""
        if self._parent is not None:
            for name in SUMMED:
                self._parent._held[name] -= getattr(self.budget, name) or 0
            self._parent.spend(self._spent)
            self._parent = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def planned(seconds: float) -> float:
    """How many of the seconds left a run may plan with."""
    return max(0.0, min(MARGIN * seconds, seconds - min(NOTICE_S, NOTICE_SHARE * seconds)))

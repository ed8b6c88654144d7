"""Curriculum: which tasks are asked next, by how much there is to learn from them.

A task that is always right or always wrong teaches nothing: all rollouts of its group are alike. So tasks are drawn
in proportion to p (1 - p), p being how often the policy gets them right (T. Foster et al. 2025, "Learning to Reason
at the Frontier of Learnability"), with a floor so that none is ever lost sight of. A task that was never asked counts
as its kind does; p forgets, since the policy moves.

Invariant: what is drawn follows from the seed, the number of the draw, and what was noted before. `state` is all of
it as plain JSON, so a resumed run draws what the uninterrupted one would have. Every process holds the same
curriculum.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.errors import DataError
from ...core.nouns import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class CurriculumOptions:
    """Raises: ValueError: a floor or a memory outside (0, 1]."""

    by_difficulty: bool = True
    """False draws every task as often as any other, in shuffled passes."""
    floor: float = 0.05
    """Added to p (1 - p), whose largest value is 0.25."""
    memory: float = 0.7
    """What is left of the old p after a new group has been seen."""

    def __post_init__(self) -> None:
        if not (0 < self.floor <= 1 and 0 < self.memory <= 1):
            raise ValueError(f"a curriculum needs a floor and a memory in (0, 1]; got {self.floor}, {self.memory}")


class Curriculum:
    """Draws tasks.

    Raises:
        DataError: no tasks, or two of one id.
    """

    def __init__(self, tasks: Sequence[Task], seed: int, options: CurriculumOptions | None = None) -> None:
        self.tasks = {task.id: task for task in tasks}
        if not tasks or len(self.tasks) < len(tasks):
            raise DataError(
                f"a curriculum needs tasks of different ids; got {len(tasks)}, {len(self.tasks)} of them different"
            )
        self.options = options or CurriculumOptions()
        self.seed = seed
        self.draws = 0
        self._rate: dict[str, float] = {}
        self._kinds: dict[str, float] = {}
        self._left: list[str] = []

    def draw(self, count: int) -> list[Task]:
        """`count` tasks, different ones as far as there are."""
        rng = random.Random(f"{self.seed}-{self.draws}")
        self.draws += 1
        if not self.options.by_difficulty:
            return [self.tasks[self._next(rng)] for _ in range(count)]
        drawn: list[Task] = []
        while len(drawn) < count:
            # A weighted sample without repeats: the largest of u^(1/w) (Efraimidis and Spirakis 2006).
            keys = {i: rng.random() ** (1 / self._weight(task)) for i, task in self.tasks.items()}
            best = sorted(keys, key=lambda i: (-keys[i], i))[: count - len(drawn)]
            drawn += [self.tasks[i] for i in best]
        return drawn

    def note(self, outcomes: Iterable[tuple[str, float]]) -> None:
        """(task id, share of its group that was right), in the same order on every process."""
        keep = self.options.memory
        for task_id, share in outcomes:
            kind = self.tasks[task_id].kind
            self._rate[task_id] = keep * self._rate.get(task_id, share) + (1 - keep) * share
            self._kinds[kind] = 0.9 * self._kinds.get(kind, share) + 0.1 * share

    def state(self) -> dict[str, Any]:
        return {"draws": self.draws, "rate": self._rate, "kinds": self._kinds, "left": self._left}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`. Rates of tasks that are no longer there are left out."""
        self.draws = int(state["draws"])
        self._rate = {str(k): float(v) for k, v in state["rate"].items() if k in self.tasks}
        self._kinds = {str(k): float(v) for k, v in state["kinds"].items()}
        self._left = [str(k) for k in state["left"] if k in self.tasks]

    def _weight(self, task: Task) -> float:
        p = self._rate.get(task.id, self._kinds.get(task.kind, 0.5))
        return p * (1 - p) + self.options.floor

    def _next(self, rng: random.Random) -> str:
        if not self._left:
            self._left = sorted(self.tasks)
            rng.shuffle(self._left)
        return self._left.pop()

"""Crew: the processes that train together, and what they tell each other. All of it is collective: every process calls, in
the same order, whatever it has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Crew:
    rank: int = 0
    size: int = 1

    def all(self, mine: T) -> list[T]:
        """What each process has, by rank."""
        if self.size == 1:
            return [mine]
        import torch.distributed as dist

        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, mine)
        return everyone

    def mine(self, items: list[T]) -> list[T]:
        """Every `size`-th item, from `rank` on."""
        return items[self.rank :: self.size]

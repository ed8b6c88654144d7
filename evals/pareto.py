"""Pareto front: what nothing else beats at its price."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]
"""(cost, accuracy)."""


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other one dominates, by rising cost. A point is dominated where another costs no more, is
    no worse, and differs in one of the two; of equal points the first stays."""
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


def cheapest_within(points: Sequence[Point], margin: float) -> int:
    """Index of the cheapest point whose accuracy is at most `margin` below the best one's; of equals the more accurate.

    Raises:
        ValueError: no point.
    """
    if not points:
        raise ValueError("the cheapest of no points")
    enough = max(accuracy for _, accuracy in points) - margin - 1e-9
    good = [i for i, (_, accuracy) in enumerate(points) if accuracy >= enough]
    return min(good, key=lambda i: (points[i][0], -points[i][1]))

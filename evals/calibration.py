"""Calibration: can a confidence be believed? Of the answers said with 0.8, about four in five should be right.

`calibrate` gives the data of a reliability plot (DeGroot and Fienberg 1983) and the expected calibration error (Naeini et al.
2015; Guo et al., arXiv 1706.04599): the mean gap between confidence and accuracy over bins of equal width, weighted by how
many answers fall into them. Beside it the Brier score, which needs no bins. Answers without a confidence are counted apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .stats import wilson


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Answers with a confidence in [low, high) (the last one holds 1 too), with the mean confidence, the share that is right,
    and its 95% interval."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """`bins` are those that hold answers, in order. `ece` and `brier` are None without answers."""

    n: int
    without: int
    """Answers that came without a confidence."""
    ece: float | None
    brier: float | None
    bins: tuple[Bin, ...]


def calibrate(answers: Iterable[tuple[float | None, bool]], bins: int = 10) -> Calibration:
    """Reliability of (confidence, right) pairs.

    Raises:
        ValueError: a confidence outside [0, 1], or less than one bin.
    """
    if bins < 1:
        raise ValueError(f"calibration needs at least one bin; got {bins}")
    pairs = list(answers)
    known = [(c, right) for c, right in pairs if c is not None]
    sets: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for confidence, right in known:
        if not 0.0 <= confidence <= 1.0:
            raise ValueError(f"a confidence must be in [0, 1]; got {confidence}")
        sets[min(bins - 1, int(confidence * bins))].append((confidence, right))
    made = tuple(_bin(i / bins, (i + 1) / bins, held) for i, held in enumerate(sets) if held)
    n = len(known)
    return Calibration(
        n=n,
        without=len(pairs) - n,
        ece=sum(b.n * abs(b.confidence - b.accuracy) for b in made) / n if n else None,
        brier=sum((c - right) ** 2 for c, right in known) / n if n else None,
        bins=made,
    )


def _bin(low: float, high: float, held: list[tuple[float, bool]]) -> Bin:
    right = sum(r for _, r in held)
    between = wilson(right, len(held))
    return Bin(
        low=low,
        high=high,
        n=len(held),
        confidence=sum(c for c, _ in held) / len(held),
        accuracy=right / len(held),
        accuracy_low=between[0],
        accuracy_high=between[1],
    )

"""Small statistics for reports: shares with their intervals, means that know when they are empty."""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

_Z95 = 1.959963984540054
"""The 97.5% quantile of the normal distribution: two-sided 95%."""


def wilson(right: int, n: int, z: float = _Z95) -> tuple[float, float]:
    """The Wilson score interval of a share (E. B. Wilson 1927), in [0, 1]; (0, 1) when `n` is 0.

    Unlike the normal approximation it stays inside [0, 1] and holds at shares near 0 and 1 and for small `n`.

    Raises:
        ValueError: when `right` is not in [0, n].
    """
    if not 0 <= right <= n:
        raise ValueError(f"the right ones must be between 0 and {n}; got {right}")
    if n == 0:
        return 0.0, 1.0
    share, z2 = right / n, z * z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # Rounding can leave the bound a hair beyond the share itself at 0 and 1.
    return min(max(0.0, centre - half), share), max(min(1.0, centre + half), share)


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None; None when there are none."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def share(values: Iterable[bool | None]) -> float | None:
    """The share of True among the values that are not None; None when there are none."""
    return mean(None if v is None else float(v) for v in values)

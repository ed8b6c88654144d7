"""Small statistics for reports: shares with their intervals, means that know when they are empty, paired tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import comb, sqrt

import numpy as np

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


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p of McNemar's test in its exact form (Q. McNemar 1947; the binomial test of the discordant pairs): how likely
    a split at least as uneven is where neither is better. 1 when no pair is discordant.

    Raises:
        ValueError: a count below zero.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts of pairs cannot be below zero; got {only_first} and {only_second}")
    n, fewer = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(comb(n, k) for k in range(fewer + 1)) / 2**n)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values of several tests, adjusted so that the chance of even one false alarm stays what it says (S. Holm 1979)."""
    adjusted, worst = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = worst
    return adjusted


def cluster_bootstrap(
    values: Sequence[float], clusters: Sequence[str], *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """95% percentile interval of the mean of `values`, from samples of whole clusters with replacement (Davison and Hinkley
    1997, section 3.8): questions about one video are not independent. None for fewer than two clusters.

    Args:
        clusters: the cluster of each value; with the same clusters and seed the draws are the same.
    """
    names = {name: i for i, name in enumerate(sorted(set(clusters)))}
    if len(names) < 2:
        return None
    of = [names[c] for c in clusters]
    sums_V, counts_V = np.bincount(of, weights=np.asarray(values, dtype=float)), np.bincount(of)
    drawn_DV = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    means_D = sums_V[drawn_DV].sum(1) / counts_V[drawn_DV].sum(1)
    low, high = np.quantile(means_D, (0.025, 0.975))
    return float(low), float(high)

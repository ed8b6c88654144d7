"""Which samples go into which batch: the plan of a whole run, made before it starts.

A batch holds samples of similar length, as many as fit into a budget of tokens (padding counted), or as fill one packed row.
The order is drawn pass by pass from the seed alone, so a run that is resumed, or shared among processes, sees the same
batches in the same order; no sampler has a state that could be lost.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

POOL = 256
"""Samples that are sorted by length together: enough for little padding, few enough for batches to differ in every pass."""

Batch = tuple[int, ...]
"""Indices of samples."""


def plan(lengths: Sequence[int], budget: int, passes: float, seed: int, *, packed: bool = False) -> list[Batch]:
    """Batches for `passes` over samples of these lengths (in tokens); a sample longer than the budget is alone in its batch.

    Raises: ValueError: no samples, or a budget or number of passes that is not positive.
    """
    if not lengths or budget < 1 or passes <= 0:
        raise ValueError(f"{len(lengths)} samples, {budget} tokens a batch, {passes} passes: each must be positive")
    wanted = max(1, round(passes * len(lengths)))
    batches: list[Batch] = []
    number = 0
    while wanted > 0:
        rng = random.Random(f"plan-{seed}-{number}")
        order = list(range(len(lengths)))
        rng.shuffle(order)
        order = order[:wanted]
        wanted, number = wanted - len(order), number + 1
        for start in range(0, len(order), POOL):
            pool = list(_fill(order[start : start + POOL], lengths, budget, packed=packed))
            rng.shuffle(pool)
            batches += pool
    return batches


def in_order(lengths: Sequence[int], budget: int, *, packed: bool = False) -> list[Batch]:
    """Every sample once, shortest first: for measuring."""
    return list(_fill(range(len(lengths)), lengths, budget, packed=packed))


def _fill(indices: Sequence[int], lengths: Sequence[int], budget: int, *, packed: bool) -> Iterator[Batch]:
    batch: list[int] = []
    total = 0
    for i in sorted(indices, key=lambda i: (lengths[i], i)):
        # Sorted by length, so the newest is the longest: that is how wide a padded batch is.
        size = total + lengths[i] if packed else lengths[i] * (len(batch) + 1)
        if batch and size > budget:
            yield tuple(batch)
            batch, total = [], 0
        batch.append(i)
        total += lengths[i]
    if batch:
        yield tuple(batch)

"""Comparing words: ROUGE, and how much of a sequence is repetition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from ...core.scoring import normalise

MAX_WORDS = 512
"""ROUGE-L is quadratic; what a model writes beyond this is not read (and lost in the precision)."""


def rouge_mean(said: str, gold: str) -> float:
    """Mean of the F-measures of ROUGE-1, ROUGE-2 and ROUGE-L over normalised words, in [0, 1].

    Source: Lin 2004; the mean is Video-R1's reward for free-form answers. Precision is part of F, so saying more than
    the gold text costs. Where a text has one word there are no pairs, and the mean is over the other two.
    """
    a, b = normalise(said[:16_000]).split()[:MAX_WORDS], normalise(gold).split()[:MAX_WORDS]
    if not a or not b:
        return 0.0
    scores = [rouge_n(a, b, 1), rouge_l(a, b)]
    if len(a) > 1 and len(b) > 1:
        scores.append(rouge_n(a, b, 2))
    return sum(scores) / len(scores)


def rouge_n(said: Sequence[str], gold: Sequence[str], n: int) -> float:
    """F1 of the n-grams, each counted at most as often as the gold text has it (Lin 2004, section 3)."""
    a, b = Counter(ngrams(said, n)), Counter(ngrams(gold, n))
    return _f1((a & b).total(), a.total(), b.total())


def rouge_l(said: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of the longest common subsequence (Lin 2004, section 4, beta = 1)."""
    before = [0] * (len(gold) + 1)
    for word in said:
        row = [0]
        for j, other in enumerate(gold):
            row.append(before[j] + 1 if word == other else max(before[j + 1], row[j]))
        before = row
    return _f1(before[-1], len(said), len(gold))


def ngrams(items: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    return list(zip(*(items[i:] for i in range(n)), strict=False))


def repeated_share(sequences: Sequence[Sequence[Hashable]], n: int) -> float:
    """1 - unique n-grams / all n-grams, within and across the sequences; an n-gram never spans two of them. In [0, 1)."""
    grams = [g for items in sequences for g in ngrams(items, n)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def _f1(shared: int, said: int, gold: int) -> float:
    return 2.0 * shared / (said + gold) if shared else 0.0

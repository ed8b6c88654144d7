"""best-of-n: sample several runs, let a verifier choose (Cobbe et al., arXiv 2110.14168; Lightman et al., arXiv
2305.20050).

Those train a verifier; here it is one of `judges.py`. What differs further: equal answers are judged once, by their
surest run, and the score is mixed with the share of the runs that say so (`prior`), for a weak judge should not overrule
seven runs of eight. A third of the budget is kept for judging; candidates that it does not pay for keep a score of one
half.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from .bench import Bench, seed_of
from .iterate import LOOK
from .judges import JUDGES, Judge, Score
from .passes import Tools, said
from .purse import Least, Purse
from .strategy import Outcome, Strategy, check
from .tally import Group, tally

CANDIDATES = 2 / 3
"""Share of the budget that goes into candidates."""


@dataclass(frozen=True, kw_only=True)
class BestOf(Strategy):
    inner: Strategy = field(default_factory=Tools)
    n: int = 4
    temperature: float = 0.7
    judge: Literal["evidence", "look", "yes-no", "sure"] = "evidence"
    prior: float = 0.5
    """Weight of the share of runs that say the same, beside the judge's score."""
    external: Judge | None = None
    """In place of `judge`; only from Python."""

    name = "best-of-n"
    help = "several sampled runs, a verifier chooses (evidence, look, yes-no or sure)"

    def __post_init__(self) -> None:
        check(self, n=(1, 1024), temperature=(0, 2), prior=(0, 1))

    @property
    def runs(self) -> float:
        return 1.5 * self.n * self.inner.runs

    def least(self, bench: Bench) -> Least:
        return self.inner.least(bench)

    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        candidates = await self._candidates(bench, purse, seed)
        if not candidates:
            return bench.anytime(purse.short_of(self.least(bench)))
        groups = tally([c.answer for c in candidates], None, bench.task.choices)
        if len(groups) == 1:
            return replace(candidates[groups[0].speaker], answer=groups[0].answer, why="all say the same")
        scores = await self._judge(bench, purse, seed, groups, candidates)
        total = sum(len(g.members) for g in groups)
        mixed = [
            (1 - self.prior) * s + self.prior * len(g.members) / total if g.valid else -1.0
            for g, s in zip(groups, scores, strict=True)
        ]
        best = max(range(len(groups)), key=lambda i: mixed[i])
        for g, s in zip(groups, scores, strict=True):
            bench.note(self.name, f"{len(g.members)} say {said(g.answer)}: judged {s:.2f}")
        chosen = candidates[groups[best].speaker]
        return replace(
            chosen, answer=replace(groups[best].answer, confidence=round(max(0.0, mixed[best]), 4)), why="judged"
        )

    async def _candidates(self, bench: Bench, purse: Purse, seed: int) -> list[Outcome]:
        seeds = [seed_of(seed, i) for i in range(self.n)]
        least = self.least(bench)
        warm = bench.varied(temperature=self.temperature)
        # A part for every candidate and half as many again for the judge.
        came = await warm.fan(self.inner, purse, seeds, of=max(1, round(self.n / CANDIDATES)))
        return [c for c in came if c is not None] if came or purse.affords(least) else []

    async def _judge(
        self, bench: Bench, purse: Purse, seed: int, groups: list[Group], candidates: list[Outcome]
    ) -> list[float]:
        score: Score = JUDGES[self.judge] if self.external is None else self.external.score
        bench = bench.varied(tools=self.uses_tools)

        async def job(part: Purse, i: int, candidate: Outcome) -> float:
            return await score(bench, part, seed_of(seed, 2000 + i), candidate)

        jobs = [partial(job, i=i, candidate=candidates[g.speaker]) for i, g in enumerate(groups)]
        if purse.ended is not None:
            return [0.5] * len(groups)
        came = await bench.each(purse, jobs, LOOK)
        came += [None] * (len(groups) - len(came))
        return [0.5 if c is None else min(1.0, max(0.0, c)) for c in came]

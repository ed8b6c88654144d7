"""vote: sample several runs, take what most of them say (self-consistency, Wang et al., arXiv 2203.11171).

What differs: intervals are votes too (the middle one is said); votes can be weighted by how sure each run was of all it
said (`thought_confidence`, in the way of DeepConf, arXiv 2508.15260); the first run may be greedy, so that a vote is
rooted in what the plain agent says. And it stops as soon as the runs that are left cannot change the result: it starts as
few as could decide, looks, and goes on. That depends on the answers only, never on which run comes back first.

All runs of a wave are asked for at once, so their common beginning is prefilled once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ..confidence import thought_confidence, weights
from .bench import Bench, Spent, seed_of
from .passes import Tools, said
from .purse import Least, Purse
from .strategy import Outcome, Strategy, check
from .tally import Group, tally


@dataclass(frozen=True, kw_only=True)
class Vote(Strategy):
    inner: Strategy = field(default_factory=Tools)
    n: int = 8
    """Runs at most."""
    temperature: float = 0.7
    weight: Literal["none", "confidence"] = "confidence"
    greedy: bool = True
    """The first run at the agent's own temperature."""
    early: bool = True
    """Stop when the rest cannot change the result."""

    name = "vote"
    help = "several sampled runs, the answer of most of them (self-consistency)"

    def __post_init__(self) -> None:
        check(self, n=(1, 1024), temperature=(0, 2))

    @property
    def runs(self) -> float:
        return self.n * self.inner.runs

    def least(self, bench: Bench) -> Least:
        return self.inner.least(bench)

    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        ballots: list[Outcome] = []
        asked, why = 0, "all voted"
        while asked < self.n:
            wave = self._wave(bench, ballots, self.n - asked)
            if not wave:
                why = "decided"
                break
            if purse.ended is not None or (ballots and not purse.affords(self.least(bench))):
                why = "budget"
                break
            came = await self._ask(bench, purse, seed, asked, wave)
            asked += len(came)
            ballots += [ballot for ballot in came if ballot is not None]
            if not any(came):
                why = "budget"
                break
        return self._result(bench, purse, ballots, why)

    async def _ask(self, bench: Bench, purse: Purse, seed: int, asked: int, wave: int) -> list[Outcome | None]:
        """The next `wave` runs, or as many of them as can be paid."""
        warm = bench.varied(temperature=self.temperature)
        seeds = [seed_of(seed, asked + i) for i in range(wave)]
        if asked or not self.greedy:
            return await warm.fan(self.inner, purse, seeds, of=self.n - asked)
        mixed = _FirstAsItIs(inner=self.inner, warm=warm, first=seeds[0])
        return await bench.fan(mixed, purse, seeds, of=self.n)

    def _wave(self, bench: Bench, ballots: Sequence[Outcome], left: int) -> int:
        """How many more runs could decide it if they all agreed; 0 when it is decided."""
        if not self.early:
            return left
        groups = self._groups(bench, ballots)
        if not groups:
            return left // 2 + 1
        lead = groups[0].weight - (groups[1].weight if len(groups) > 1 else 0.0)
        if lead > left:  # no vote weighs more than 1
            return 0
        return next(k for k in range(1, left + 1) if lead + k > left - k)

    def _groups(self, bench: Bench, ballots: Sequence[Outcome]) -> list[Group]:
        answers = [replace(b.answer, confidence=self._sure(b)) for b in ballots]
        weighed = weights(a.confidence for a in answers) if self.weight == "confidence" else None
        return [g for g in tally(answers, weighed, bench.task.choices) if g.valid]

    def _sure(self, ballot: Outcome) -> float | None:
        thought = None if ballot.trajectory is None else thought_confidence(ballot.trajectory)
        return ballot.answer.confidence if thought is None else thought

    def _result(self, bench: Bench, purse: Purse, ballots: Sequence[Outcome], why: str) -> Outcome:
        if not ballots:
            raise Spent(purse.short_of(self.least(bench)))
        groups = self._groups(bench, ballots)
        if not groups:  # nobody said anything: the first run speaks
            return ballots[0]
        best = groups[0]
        tell = ", ".join(f"{len(g.members)} say {said(g.answer)}" for g in groups[:4])
        bench.note(self.name, f"{len(ballots)} of {self.n} runs, {why}: {tell}")
        speaker = ballots[best.speaker]
        stop = purse.short_of(self.least(bench)) if why == "budget" else speaker.stop
        return Outcome(answer=best.answer, why=why, trajectory=speaker.trajectory, stop=stop)


@dataclass(frozen=True, kw_only=True)
class _FirstAsItIs(Strategy):
    """The run of the seed `first` at the agent's own temperature, the others on the warm bench."""

    inner: Strategy
    warm: Bench
    first: int

    name = "first"
    help = ""

    def least(self, bench: Bench) -> Least:
        return self.inner.least(bench)

    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        return await self.inner.solve(bench if seed == self.first else self.warm, purse, seed)

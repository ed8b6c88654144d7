"""iterate: answer again on the clips that the last pass named (iterative perception, VideoChat-R1.5, arXiv 2509.21100).

There a pass sees uniform frames, names the clips that matter, and the next pass sees these densely. Here the first pass
is any strategy, and the next looks again at what it cited (`look.py`): with tools by zooming there, without by frames of
these clips beside a few uniform ones. It stops when two passes say the same; where none do, all passes vote, the surer
counting more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..confidence import thought_confidence, weights
from .bench import Bench, Spent, seed_of
from .look import look_again
from .passes import Tools, said
from .purse import Least, Purse
from .strategy import Outcome, Strategy, check
from .tally import same, tally


@dataclass(frozen=True, kw_only=True)
class Iterate(Strategy):
    inner: Strategy = field(default_factory=Tools)
    rounds: int = 3
    """Passes after the first, at most."""

    name = "iterate"
    help = "answer again on the clips that the last pass named, until two passes agree"

    def __post_init__(self) -> None:
        check(self, rounds=(1, 64))

    @property
    def runs(self) -> float:
        return self.inner.runs + self.rounds

    def least(self, bench: Bench) -> Least:
        return self.inner.least(bench)

    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        with purse.part(1 + self.rounds, self.inner.least(bench)) as part:
            now = await self.inner.solve(bench, part, seed)
        passes, bench = [now], bench.varied(tools=self.uses_tools)
        for i in range(self.rounds):
            try:
                with purse.part(self.rounds - i, LOOK) as part:
                    run = await look_again(bench, part, seed_of(seed, 1000 + i), now, i)
            except Spent as spent:
                return replace(self._best(bench, passes), why="budget", stop=spent.reason)
            if run is None:
                return replace(now, why="nothing to look at")
            if run.answer is None:
                break
            before, now = now, bench.outcome(run, "another pass")
            passes.append(now)
            bench.note(self.name, f"pass {i + 2}: {said(now.answer)}")
            if same(before.answer, now.answer, bench.task.choices):
                return replace(self._surer(before, now), why="two passes agree")
        return replace(self._best(bench, passes), why="no two in a row agree")

    def _surer(self, one: Outcome, other: Outcome) -> Outcome:
        return max((one, other), key=lambda o: o.answer.confidence or 0.0)

    def _best(self, bench: Bench, passes: list[Outcome]) -> Outcome:
        sure = [o.trajectory and thought_confidence(o.trajectory) for o in passes]
        groups = tally([o.answer for o in passes], weights(sure), bench.task.choices)
        best = groups[0]
        return replace(passes[best.speaker], answer=best.answer)


LOOK = {"frames": 16, "tool_calls": 1, "sampled_tokens": 256, "model_calls": 2}
"""What a look at a clip needs to be worth starting."""

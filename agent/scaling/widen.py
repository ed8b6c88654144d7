"""widen: sparse to dense. Few frames and several samples; while the samples disagree, more frames (Video-RTS, arXiv
2507.06485).

There frames double until self-consistency is reached; so here. With tools inside, the skim is what gets denser. Where the
samples never agree, all of all rounds vote.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .bench import Bench, seed_of
from .passes import Direct, said
from .purse import Least, Purse
from .strategy import Outcome, Strategy, check
from .tally import tally


@dataclass(frozen=True, kw_only=True)
class Widen(Strategy):
    inner: Strategy = field(default_factory=Direct)
    frames: int = 8
    """Uniform frames of the first round."""
    most: int = 64
    """Uniform frames of the last round."""
    n: int = 3
    """Samples a round."""
    agree: float = 1.0
    """Share of the samples that must say the same."""
    temperature: float = 0.7

    name = "widen"
    help = "more frames while sampled answers disagree"

    def __post_init__(self) -> None:
        check(self, frames=(1, 100_000), most=(self.frames, 100_000), n=(2, 1024), agree=(0, 1), temperature=(0, 2))

    @property
    def rounds(self) -> int:
        return 1 + next(i for i in range(64) if self.frames << i >= self.most)

    @property
    def runs(self) -> float:
        return self.rounds * self.n * self.inner.runs

    def least(self, bench: Bench) -> Least:
        return self.inner.least(bench)

    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        said_so_far: list[Outcome] = []
        why = "never agreed"
        for i in range(self.rounds):
            frames = min(self.most, self.frames << i)
            if said_so_far and not purse.affords(self.least(bench)):
                why = "budget"
                break
            wide = bench.varied(skim_frames=frames, temperature=self.temperature)
            seeds = [seed_of(seed, i * self.n + j) for j in range(self.n)]
            of = self.n * (2 if i == 0 and self.rounds > 1 else 1)
            came = [o for o in await wide.fan(self.inner, purse, seeds, of=of) if o]
            said_so_far += came
            groups = tally([o.answer for o in came], None, bench.task.choices)
            share = len(groups[0].members) / self.n if groups else 0.0
            answer = said(groups[0].answer) if groups else "nothing"
            bench.note(self.name, f"{_shown(came, frames)}: {share:.0%} say {answer}")
            if groups and groups[0].valid and share >= self.agree:
                return replace(came[groups[0].speaker], answer=groups[0].answer, why="agreed")
            if not came:
                why = "budget"
                break
        if not said_so_far:
            return bench.anytime(purse.short_of(self.least(bench)))
        best = tally([o.answer for o in said_so_far], None, bench.task.choices)[0]
        speaker = said_so_far[best.speaker]
        stop = purse.short_of(self.least(bench)) if why == "budget" else speaker.stop
        return replace(speaker, answer=best.answer, why=why, stop=stop)


def _shown(came: list[Outcome], asked: int) -> str:
    """With how many frames the samples began: a small budget shows fewer than it was asked for."""
    counts = sorted(len(o.trajectory.turns[0].context_frames) for o in came if o.trajectory and o.trajectory.turns)
    low, high = (counts[0], counts[-1]) if counts else (0, 0)
    said = f"{low}" if low == high else f"{low}-{high}"
    return f"{said} frames" if low == high == asked else f"{said} of {asked} frames"

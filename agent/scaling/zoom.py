"""zoom: best-first search over intervals (in the way of tree searches over video: VideoTree 2405.19209, T* 2504.02259).

The root is the whole video. A node is looked at with a few uniform frames of its interval: the policy answers, and the
node's value is how sure it is, times what it says of itself: do these frames suffice? (Asked of models that follow
instructions, else left out.) The most promising node is split next, until a node is sure enough, intervals are short, or
the budget is used up. The answer is that of the node of highest value; where it cites nothing, its interval is the
evidence.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, replace
from functools import partial

from ...core.clip import Clip
from ...core.sampling import uniform_times
from ..confidence import mean_probability
from .bench import Bench, Spent, seed_of
from .judges import OPENING
from .passes import said
from .purse import Least, Purse
from .strategy import Outcome, Strategy, check

SUFFICE = "\nDo these frames show enough to answer the question? Answer yes or no."


@dataclass(frozen=True, kw_only=True)
class Zoom(Strategy):
    frames: int = 8
    """Shown of every interval."""
    branches: int = 4
    """Into how many an interval is split."""
    nodes: int = 13
    """Looked at, at most."""
    shortest: float = 8.0
    """Seconds; a shorter interval is not split."""
    sure: float = 0.95
    """From this value on a node's answer stands."""

    name = "zoom"
    help = "best-first search over intervals, by how sure the answer from each is"

    def __post_init__(self) -> None:
        check(self, frames=(1, 100_000), branches=(2, 64), nodes=(1, 10_000), shortest=(0.1, 1e6), sure=(0, 1.01))

    @property
    def runs(self) -> float:
        return self.nodes * self.frames / 16

    def least(self, bench: Bench) -> Least:
        return {"frames": min(4, self.frames), "sampled_tokens": 80, "model_calls": 1}

    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        whole = Clip(video_id=bench.desk.video.id, start_s=0.0, end_s=bench.desk.video.readable_s)
        frontier: list[tuple[float, int, Clip]] = []
        best: tuple[float, Outcome] | None = None
        looked, level, why = 0, [whole], "all looked at"
        while level:
            jobs = [partial(self._look, bench, clip=c, seed=seed_of(seed, looked + i)) for i, c in enumerate(level)]
            came = await bench.each(purse, jobs, self.least(bench), of=max(len(jobs), self.nodes - looked))
            for clip, one in zip(level, came, strict=False):
                looked += 1
                if one is None:
                    continue
                bench.note(
                    self.name, f"{clip.start_s:.0f}-{clip.end_s:.0f} s, value {one[0]:.2f}: {said(one[1].answer)}"
                )
                if clip.duration_s > self.shortest:
                    heapq.heappush(frontier, (-one[0], looked, clip))
                best = one if best is None or one[0] > best[0] else best
            if best is not None and best[0] >= self.sure:
                why = "sure"
                break
            if not any(came) or not purse.affords(self.least(bench)):
                why = "budget"
                break
            level = self._split(heapq.heappop(frontier)[2], self.nodes - looked) if frontier else []
        if best is None:
            return bench.anytime(purse.short_of(self.least(bench)))
        stop = purse.short_of(self.least(bench)) if why == "budget" else best[1].stop
        return replace(best[1], why=why, stop=stop)

    def _split(self, clip: Clip, most: int) -> list[Clip]:
        step = clip.duration_s / self.branches
        cuts = [clip.start_s + step * i for i in range(self.branches + 1)]
        return [replace(clip, start_s=a, end_s=b) for a, b in itertools.pairwise(cuts)][:most]

    async def _look(self, bench: Bench, part: Purse, *, clip: Clip, seed: int) -> tuple[float, Outcome]:
        times = tuple(clip.start_s + t for t in uniform_times(clip.duration_s, self.frames))
        run = await bench.episode(part, seed, tools=False, times_s=times)
        outcome = bench.outcome(run)
        if not outcome.answer.evidence:
            outcome = replace(outcome, answer=replace(outcome.answer, evidence=(clip,)))
        known = outcome.answer.choice is not None or not bench.task.choices
        value = (outcome.answer.confidence if outcome.answer.confidence is not None else 0.5) if known else 0.0
        return value * await self._suffice(bench, part, times, seed), outcome

    async def _suffice(self, bench: Bench, part: Purse, times: tuple[float, ...], seed: int) -> float:
        """The policy's probability that an interval's frames are enough; 1 where it cannot be asked."""
        if not bench.knows_words or part.left("frames") < len(times):
            return 1.0
        try:
            asked = bench.first_messages(await bench.frames(part, times), SUFFICE)
            said = (await bench.say(part, asked, opening=OPENING, tokens=4, seed=seed)).turns[-1].completion
        except Spent:
            return 1.0
        p = mean_probability(said.logprobs[:1])
        yes = said.text.strip().lower().startswith("yes")
        return (float(yes) if p is None else p if yes else 1.0 - p) or 0.01

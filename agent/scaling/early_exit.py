"""early-exit: answer directly when sure, think only when not (VideoAuto-R1's "reason when necessary"); and glance, that
first look.

There the model answers, and its confidence in that answer decides whether it goes on to reason. Here the first answer is
any strategy's (by default a glance: the skim's frames and an answer without a thought), and so is what follows. How sure
it was is the mean probability of all that it said. `early-exit(tools,vote(tools,n=8))` votes only where the plain agent
was in doubt. The first may spend what it would alone; the inner strategy has what it leaves. So under a budget that pays for
no more than the first answer, that is the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ...core.nouns import StopReason
from ...core.sampling import uniform_times
from ..confidence import answer_confidence, thought_confidence
from .bench import Bench, Spent
from .passes import Tools, said
from .purse import Least, Purse
from .strategy import UNKNOWN, Outcome, Strategy, check
from .tally import is_answer

OPENING = "<think></think>\n<answer>"
TOKENS = 32


@dataclass(frozen=True, kw_only=True)
class Glance(Strategy):
    frames: int = 0
    """Uniform frames; 0 for as many as the agent skims."""

    name = "glance"
    help = "the skim's frames and an answer without a thought"

    def __post_init__(self) -> None:
        check(self, frames=(0, 100_000))

    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        count = self.frames or bench.manner.skim_frames or bench.agent.profile.skim_frames
        shown = await bench.frames(purse, uniform_times(bench.desk.video.readable_s, count))
        look = await bench.say(purse, bench.first_messages(shown), opening=OPENING, tokens=TOKENS, seed=seed)
        completion = look.turns[-1].completion
        text, _, rest = completion.text.partition("</answer>")
        text = text.strip().split("\n")[0].split("<")[0].strip()
        if not text:
            return Outcome(answer=UNKNOWN, why="nothing said", trajectory=look)
        spans, _, boxes = rest.partition("<box>")
        answer = bench.answer_of(text, spans, answer_confidence(completion, bench.agent.policy, text), boxes)
        return bench.settle(look, answer, "one look")


@dataclass(frozen=True, kw_only=True)
class EarlyExit(Strategy):
    first: Strategy = field(default_factory=Glance)
    inner: Strategy = field(default_factory=Tools)
    sure: float = 0.95
    """From this confidence on the first answer stands."""

    name = "early-exit"
    help = "a cheap first answer where the model is sure of it, the inner strategy where it is not"

    def __post_init__(self) -> None:
        check(self, sure=(0, 1.01))

    @property
    def runs(self) -> float:
        return self.first.runs + self.inner.runs

    def least(self, bench: Bench) -> Least:
        return self.first.least(bench)

    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        with purse.part(1, self.first.least(bench)) as part:
            first = await self.first.solve(bench, part, seed)
        thought = first.trajectory and thought_confidence(first.trajectory)
        sure = (first.answer.confidence if thought is None else thought) or 0.0
        goes = sure >= self.sure and is_answer(first.answer, bench.task.choices)
        bench.note(self.name, f"{said(first.answer)}, sure {sure:.3f}: " + ("that is enough" if goes else "not enough"))
        if goes:
            return replace(first, why="sure")
        least = self.inner.least(bench)
        if first.answer.text != UNKNOWN.text and not purse.affords(least):
            return replace(first, why="budget", stop=purse.short_of(least))
        try:
            second = await self.inner.solve(bench, purse, seed)
        except Spent as spent:
            return replace(first, why="budget", stop=spent.reason)
        failed = second.stop is StopReason.ERROR and is_answer(first.answer, bench.task.choices)
        return replace(first, why="error", stop=StopReason.ERROR) if failed else second

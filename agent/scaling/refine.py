"""refine: answer, criticise the answer against the evidence, revise; stop when it is stable (ReAgent-V, arXiv
2506.01300).

There a critic with a reward model writes a report, and the answer is revised from several stances. Here the policy is its
own critic: it is shown the cited frames and its answer, and says what they do not prove; the revision is a new run that
is told both. A model that follows no instructions (`Bench.knows_words`) criticises by looking again at what it cited, and
revises by a new sampled run. Stable: the critic has no objection, or a revision says what was said before.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ...core.clip import merge_clips
from .bench import Bench, Spent, seed_of
from .judges import FRAMES
from .look import look_again, times_in
from .passes import Tools, said
from .purse import Least, Purse
from .strategy import Outcome, Strategy, check
from .tally import is_answer, same, tally

CRITIQUE = (
    "\nProposed answer: {answer}\nThese frames were cited as its evidence. Say in one or two sentences what they do not prove, "
    "or what contradicts the answer. If they prove it, write only OK."
)
REVISE = "\nAn earlier answer was: {answer}\nA critic said of it: {critique}\nLook again where needed, and answer."


@dataclass(frozen=True, kw_only=True)
class Refine(Strategy):
    inner: Strategy = field(default_factory=Tools)
    rounds: int = 2
    temperature: float = 0.7
    """Of a revision that is told nothing: it has to come by another way."""

    name = "refine"
    help = "answer, criticise against the evidence, revise, until it is stable"

    def __post_init__(self) -> None:
        check(self, rounds=(1, 64), temperature=(0, 2))

    @property
    def runs(self) -> float:
        return self.inner.runs * (1 + 1.5 * self.rounds)

    def least(self, bench: Bench) -> Least:
        return self.inner.least(bench)

    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        with purse.part(1 + self.rounds, self.inner.least(bench)) as part:
            drafts = [await self.inner.solve(bench, part, seed)]
        for i in range(self.rounds):
            try:
                with purse.part(self.rounds - i) as part:
                    step = self._in_words if bench.knows_words else self._by_looking
                    stable = await step(bench, part, seed_of(seed, 4000 + 2 * i), drafts)
            except Spent as spent:
                return replace(self._best(bench, drafts), why="budget", stop=spent.reason)
            if stable is not None:
                return stable
        return replace(self._best(bench, drafts), why="never stable")

    async def _in_words(self, bench: Bench, purse: Purse, seed: int, drafts: list[Outcome]) -> Outcome | None:
        now = drafts[-1]
        frames = await bench.frames(purse, times_in(merge_clips(now.answer.evidence), FRAMES))
        asked = bench.first_messages(frames, CRITIQUE.format(answer=now.answer.text))
        critique = " ".join((await bench.say(purse, asked, tokens=96, seed=seed)).turns[-1].completion.text.split())
        bench.note(self.name, f"critic: {critique[:100]}")
        if critique.rpartition("</think>")[2].strip(" .*").lower() == "ok":
            return replace(now, why="no objection")
        hint = REVISE.format(answer=now.answer.text, critique=critique)
        return self._told(bench, drafts, await self.inner.solve(bench.varied(hint=hint), purse, seed + 1))

    async def _by_looking(self, bench: Bench, purse: Purse, seed: int, drafts: list[Outcome]) -> Outcome | None:
        with purse.part(2) as part:
            turn = len(drafts) // 2  # each round looks elsewhere
            look = await look_again(bench.varied(tools=self.uses_tools), part, seed, drafts[-1], turn)
        if look is not None and look.answer is not None:
            stable = self._told(bench, drafts, bench.outcome(look))
            if stable is not None:
                return stable
        warm = bench.varied(temperature=self.temperature)
        return self._told(bench, drafts, await self.inner.solve(warm, purse, seed + 1))

    def _told(self, bench: Bench, drafts: list[Outcome], new: Outcome) -> Outcome | None:
        """Add a draft; the outcome where it says what an earlier one said."""
        bench.note(self.name, f"draft {len(drafts) + 1}: {said(new.answer)}")
        known = new.answer.choice is not None or not bench.task.choices
        before = next((d for d in drafts if known and same(d.answer, new.answer, bench.task.choices)), None)
        drafts.append(new)
        if before is None:
            return None
        surer = max((before, new), key=lambda o: o.answer.confidence or 0.0)
        return replace(surer, why="stable")

    def _best(self, bench: Bench, drafts: list[Outcome]) -> Outcome:
        """In words the last draft that answers knows most; else the one that most agree on, or the surest."""
        if bench.knows_words:
            return next((d for d in reversed(drafts) if is_answer(d.answer, bench.task.choices)), drafts[-1])
        best = tally([d.answer for d in drafts], None, bench.task.choices)[0]
        return drafts[best.speaker]

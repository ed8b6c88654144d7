"""force: budget forcing (s1, arXiv 2501.19393). Make the model think longer, or cut its thought and demand the answer.

Longer: where the final turn closes its thought, the close is taken away, "Wait" is written instead, and the model goes on
from there, token for token; so `waits` times, and the last answer counts. Where it says nothing readable, the answer
before stands; so it does for a model with habits of its own (`Bench.knows_words`), unless it is surer of the new one.
Cut: `most` bounds the tokens of a turn, after which the agent writes the opening of an answer. s1 does this to a single
chain of thought; here to the final turn of any strategy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ...core.nouns import Completion, FinishReason, Message
from ...core.trajectory import Trajectory, Turn
from .bench import Bench, Spent, seed_of
from .passes import Think, said
from .purse import SUMMED, Least, Purse
from .strategy import Outcome, Strategy, check

CLOSE = "</think>"
DEMAND = "\n</think>\n<answer>"
ANSWER_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Force(Strategy):
    inner: Strategy = field(default_factory=Think)
    waits: int = 1
    """How often the end of the thought is refused."""
    tokens: int = 256
    """Room for each longer thought."""
    most: int = 0
    """Cut a turn after so many tokens and demand the answer; 0 for the model's own limit."""
    word: str = "Wait"

    name = "force"
    help = "refuse the end of the thought (Wait), or cut it and demand the answer"

    def __post_init__(self) -> None:
        check(self, waits=(0, 64), tokens=(16, 100_000), most=(0, 100_000))

    @property
    def runs(self) -> float:
        return self.inner.runs + 0.5 * self.waits

    def least(self, bench: Bench) -> Least:
        return self.inner.least(bench)

    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        with purse.part(2 if self.waits else 1, self._first(bench, purse)) as part:
            cut = bench.varied(turn_tokens=self.most) if self.most else bench
            now = await self.inner.solve(cut, part, seed)
        for i in range(self.waits):
            try:
                longer = await self._longer(bench, purse, now, seed_of(seed, 3000 + i))
            except Spent as spent:
                return replace(now, why="budget", stop=spent.reason)
            if longer is None:
                return replace(now, why="no longer thought")
            bench.note(self.name, f"{self.word}: {said(longer.answer)}")
            surer = (longer.answer.confidence or 0.0) > (now.answer.confidence or 0.0)
            now = longer if bench.knows_words or surer else now
        return now

    def _first(self, bench: Bench, purse: Purse) -> Least:
        """What the inner strategy is given: all but what the longer thoughts may sample, for they look at nothing new."""
        kept = {"sampled_tokens": self.waits * (self.tokens + ANSWER_TOKENS), "model_calls": 2 * self.waits}
        least = self.inner.least(bench)
        return {n: int(max(least.get(n, 0), min(1 << 40, purse.left(n)) - kept.get(n, 0))) for n in SUMMED}

    async def _longer(self, bench: Bench, purse: Purse, now: Outcome, seed: int) -> Outcome | None:
        """The answer after a longer thought; None where there is no thought to lengthen, or nothing readable came."""
        head = None if now.trajectory is None else self._reopened(bench, now.trajectory)
        if head is None or now.trajectory is None:
            return None
        text = head.context_messages[-1].text
        turns = (*now.trajectory.turns[:-1], head)
        temperature = bench.manner.temperature or 0.0
        run = await bench.go_on(purse, turns, tokens=self.tokens, temperature=temperature, seed=seed)
        answer = bench.read(text, run)
        if answer is None and run.turns[-1].completion.finish_reason is FinishReason.LENGTH:
            last = run.turns[-1]
            said_so_far = text + last.completion.text
            demand = CLOSE not in said_so_far
            opening = DEMAND if demand else "\n<answer>"
            turn = _going_on(bench, last, last.context_ids + last.completion.token_ids, said_so_far + opening, opening)
            run = await bench.go_on(purse, (*turns[:-1], turn), tokens=ANSWER_TOKENS, seed=seed)
            answer = bench.read(said_so_far + opening, run)
        if answer is None or (bench.task.choices and answer.choice is None):
            return None
        return bench.settle(run, answer, "thought longer")

    def _reopened(self, bench: Bench, run: Trajectory) -> Turn | None:
        """The final turn as a context that ends within its thought, with `word` written where the thought ended."""
        last = run.turns[-1] if run.turns else None
        if last is None or CLOSE not in last.completion.text:
            return None
        kept_text = last.completion.text.partition(CLOSE)[0]
        decode, ids = bench.agent.policy.renderer.decode, last.completion.token_ids
        kept = next((i for i in range(len(ids), -1, -1) if decode(ids[:i]) == kept_text), None)
        if kept is None:
            return None
        word = self.word if not kept_text or kept_text[-1].isspace() else f"\n{self.word}"
        return _going_on(bench, last, last.context_ids + ids[:kept], kept_text + word, word)


def _going_on(bench: Bench, turn: Turn, ids: tuple[int, ...], text: str, added: str) -> Turn:
    """A turn whose context is `ids` and the tokens of `added`, in text the assistant's own words so far."""
    own = [m for m in turn.context_messages if m.role != "assistant"]
    return replace(
        turn,
        context_ids=ids + bench.agent.policy.renderer.encode(added),
        context_messages=(*own, Message(role="assistant", content=(text,))),
        completion=Completion(token_ids=(), text=""),
        tool_calls=(),
        observations=(),
    )

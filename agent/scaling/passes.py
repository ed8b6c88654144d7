"""direct, think, tools: one pass each, the atoms that the other strategies are made of.

direct: uniform frames, one pass, no tools: how most published figures of Video-LMMs are made (Video-MME, LongVideoBench).
As many frames as asked for, or as the budget holds. think: the same with a chain of thought asked for (Wei et al., arXiv
2201.11903) and room for one. A model with habits of its own (`Bench.knows_words`) is asked neither to think nor not to:
it does as it was trained, and the two are the same for it but for the room. tools: the agent as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from .bench import Bench
from .purse import Least, Purse
from .strategy import Outcome, Strategy, check

MOST_FRAMES = 64
"""Of a single pass that is not told how many: more is more than most models were trained on."""
AT_ONCE = "\nAnswer at once, with nothing before <answer>."
STEP_BY_STEP = "\nThink step by step inside <think></think> about what the frames show, then answer."


@dataclass(frozen=True, kw_only=True)
class Direct(Strategy):
    frames: int = 0
    """How many uniform frames; 0 for as many as the budget has, 64 at most."""

    name = "direct"
    help = "uniform frames, one pass, no tools"
    hint = AT_ONCE

    def __post_init__(self) -> None:
        check(self, frames=(0, 100_000))

    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        frames = bench.manner.skim_frames or self.frames or MOST_FRAMES
        hint = bench.manner.hint + (self.hint if bench.knows_words else "")
        run = await bench.episode(
            purse, seed, tools=False, skim_frames=frames, hint=hint, turn_tokens=self._room(bench)
        )
        bench.note(self.name, f"{run.usage.frames} frames: {said(run.answer)}")
        return bench.outcome(run)

    def _room(self, bench: Bench) -> int | None:
        return bench.manner.turn_tokens


@dataclass(frozen=True, kw_only=True)
class Think(Direct):
    tokens: int = 1024
    """Room for the thought."""

    name = "think"
    help = "uniform frames, a chain of thought, no tools"
    hint = STEP_BY_STEP

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, tokens=(16, 100_000))

    def _room(self, bench: Bench) -> int | None:
        return bench.manner.turn_tokens or max(self.tokens, bench.agent.profile.turn_tokens)


@dataclass(frozen=True, kw_only=True)
class Tools(Strategy):
    name = "tools"
    help = "the agent as it is: skim, search, zoom, answer"

    @property
    def uses_tools(self) -> bool:
        return True

    def least(self, bench: Bench) -> Least:
        # A search and a zoom with their frames, a thought before, between and after.
        skim = bench.manner.skim_frames or bench.agent.profile.skim_frames
        return {"frames": skim + 16, "tool_calls": 2, "sampled_tokens": 384, "model_calls": 4}

    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        run = await bench.episode(purse, seed)
        bench.note(self.name, f"{run.usage.tool_calls} calls, {run.usage.frames} frames: {said(run.answer)}")
        return bench.outcome(run)


def said(answer: object) -> str:
    """An answer in a few words, for the trace."""
    text = getattr(answer, "text", None)
    if text is None:
        return "no answer"
    sure = getattr(answer, "confidence", None)
    short = " ".join(str(text).split())
    short = short if len(short) <= 60 else f"{short[:57]}..."
    return short if sure is None else f"{short} ({sure:.2f})"

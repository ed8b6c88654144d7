"""A grid that answers at once what a hash says, for tests that kill processes:

    python grid_stub.py TASKS.jsonl OUT WORKERS SECONDS_A_QUESTION

No model is loaded. Whether an answer is right, and what it cost, hangs on strategy, limits, task and seed alone.
"""

import asyncio
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from playhead.agent.profile import Profile
from playhead.agent.scaling.strategy import Scaled, Strategy
from playhead.core.budget import Usage
from playhead.core.nouns import Answer, StopReason
from playhead.evals.grid import cells_of, run_grid
from playhead.evals.manifest import Setup


@dataclass(frozen=True, kw_only=True)
class Hashed(Strategy):
    """Right in `good` of 16 cases."""

    good: int = 8
    wait_s: float = 0.0

    name = "hashed"
    help = ""

    def __str__(self) -> str:
        return f"hashed(good={self.good})"

    @property
    def uses_tools(self) -> bool:
        return False

    async def solve(self, bench, purse, seed):
        raise NotImplementedError

    async def run(self, agent, task, budget=None, seed=None, tell=None, *, concurrency=8) -> Scaled:
        await asyncio.sleep(self.wait_s)
        drawn = hashlib.sha256(f"{self} {budget.frames} {task.id} {seed}".encode()).digest()
        said = task.answer if drawn[0] % 16 < self.good else "another"
        return Scaled(
            strategy=str(self),
            task=task,
            answer=Answer(text=said, choice=None, confidence=drawn[1] / 255),
            stop_reason=StopReason.ANSWERED,
            why="hash",
            usage=Usage(
                frames=budget.frames,
                sampled_tokens=drawn[2],
                prefill_tokens=100 * self.good,
                model_calls=1,
                wall_s=drawn[3],
            ),
            budget=budget,
            trajectories=(),
            trace=(),
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class StubSetup(Setup):
    model: str = "hash"

    def agent(self):
        return SimpleNamespace(profile=Profile(), policy=None)


def stub_cells(wait_s: float = 0.0):
    strategies = [Hashed(good=good, wait_s=wait_s) for good in (4, 8, 12)]
    return cells_of(StubSetup(), strategies, [{"frames": 16}, {"frames": 64}])


if __name__ == "__main__":
    tasks, out, workers, wait_s = sys.argv[1:]
    cells = stub_cells(float(wait_s))
    run_grid(Path(tasks), Path(out), cells, workers=int(workers))

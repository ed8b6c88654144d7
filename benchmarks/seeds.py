"""Does a request's seed fix its random numbers? Whole episodes of the embedded model, alone and sixteen at once.

    python -m playhead.benchmarks.seeds --data world                      # 100 episodes on the tasks of that folder
    python -m playhead.benchmarks.seeds --data world --episodes 16 --temperatures 1

Alone means: nothing else under way, and all caches empty. Temperatures take turns from episode to episode. Where two runs
differ, the first token that does is looked at in a full recompute: how much would its logits have to change for the other
token to be drawn? Float noise is below 1e-4, so less than that is a tie, and more is a fault (exit code 1).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from ..agent.episode import turn_seed
from ..agent.manner import Manner
from ..agent.video_agent import VideoAgent
from ..core.nouns import Task
from ..core.tasks import read_tasks
from ..core.trajectory import Trajectory

TIE = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Two runs of one episode part at token `at` of turn `turn`; `margin` is the change of logits that explains it."""

    episode: int
    turn: int
    at: int
    margin: float


async def episodes(
    agent: VideoAgent, tasks: Sequence[Task], temperatures: Sequence[float], together: int, count: int
) -> list[Trajectory]:
    """`count` episodes, `together` of them under way at any time; seed and temperature depend on the number alone."""
    places = asyncio.Semaphore(together)

    async def one(i: int) -> Trajectory:
        async with places:
            if together == 1:
                agent.policy.weights_changed()  # pyright: ignore[reportAttributeAccessIssue] (empties the caches)
            manner = Manner(temperature=temperatures[i % len(temperatures)])
            return await agent.arun(tasks[i % len(tasks)], seed=i, manner=manner)

    return await asyncio.gather(*(one(i) for i in range(count)))


def first_difference(policy: Any, i: int, a: Trajectory, b: Trajectory) -> Difference | None:
    """None where all tokens that were sampled, and all that were read, are the same."""
    ids: list[int] = []
    frames: list[Any] = []
    for turn, (x, y) in enumerate(zip(a.turns, b.turns, strict=False)):
        if x.context_ids != y.context_ids:
            return Difference(episode=i, turn=turn, at=-1, margin=float("inf"))  # a tool, not the model
        ids += x.context_ids
        frames += x.context_frames
        said, other = x.completion.token_ids, y.completion.token_ids
        if said != other:
            at = next((k for k, (p, q) in enumerate(zip(said, other, strict=False)) if p != q), min(len(said), len(other)))
            if at == min(len(said), len(other)):  # one was cut: a limit of time
                return Difference(episode=i, turn=turn, at=at, margin=float("inf"))
            logits_V = full_logits(policy, [*ids, *said[:at]], frames)
            state: Any = {"seed": a.seed}
            numbers = Random(turn_seed(state, turn))
            drawn = [numbers.random() for _ in range(at + 1)][-1]
            m = margin(logits_V, policy.renderer.suppressed_token_ids, a.temperature, drawn, said[at], other[at])
            return Difference(episode=i, turn=turn, at=at, margin=m)
        ids += said
    return None if len(a.turns) == len(b.turns) else Difference(episode=i, turn=-1, at=-1, margin=float("inf"))


def full_logits(policy: Any, ids: Sequence[int], frames: Sequence[Any]) -> torch.Tensor:
    """(V,) behind the last of `ids`, by the model's own forward (Qwen3-VL's) over everything at once."""
    row = torch.tensor([ids])
    pixels, grids = policy.renderer.pixel_inputs(frames, policy.store)
    policy.model.model.rope_deltas = None
    with torch.no_grad():
        return policy.model(
            input_ids=row, attention_mask=torch.ones_like(row), pixel_values=pixels, image_grid_thw=grids,
            mm_token_type_ids=(row == policy.renderer.image_token_id).int(),
        ).logits[0, -1]  # fmt: skip


def margin(
    logits_V: torch.Tensor, suppressed: Sequence[int], temperature: float, drawn: float, one: int, other: int
) -> float:
    """The change of logits that lets either token be chosen: their difference when greedy; else how far `drawn` lies outside
    the piece of the cumulative distribution of each, times the temperature (mass moves by at most a logit's change / T)."""
    allowed = logits_V.double().index_fill(0, torch.tensor(suppressed, dtype=torch.long), float("-inf"))
    if temperature <= 0:
        return float(max(allowed.max() - allowed[one], allowed.max() - allowed[other]))
    cdf = (allowed / temperature).softmax(0).cumsum(0)
    outside = [max(float(cdf[t - 1]) - drawn if t else 0.0, drawn - float(cdf[t]), 0.0) for t in (one, other)]
    return max(outside) * temperature


def compare(agent: VideoAgent, tasks: Sequence[Task], temperatures: Sequence[float], count: int) -> dict[str, Any]:
    """Run all, alone and together, and compare."""

    async def both() -> tuple[list[Trajectory], list[Trajectory]]:
        alone = await episodes(agent, tasks, temperatures, 1, count)
        agent.policy.weights_changed()  # pyright: ignore[reportAttributeAccessIssue]
        return alone, await episodes(agent, tasks, temperatures, 16, count)

    alone, crowd = asyncio.run(both())
    failed = [t.error for t in (*alone, *crowd) if t.error]
    found = [d for i, (a, b) in enumerate(zip(alone, crowd, strict=True)) if (d := first_difference(agent.policy, i, a, b))]
    worst = max(
        (abs(p - q) for a, b in zip(alone, crowd, strict=True) for x, y in zip(a.turns, b.turns, strict=False)
         if x.completion.token_ids == y.completion.token_ids
         for p, q in zip(x.completion.logprobs or (), y.completion.logprobs or (), strict=True)), default=0.0,
    )  # fmt: skip
    return {
        "episodes": count, "token-equal": count - len(found), "sampled tokens": sum(t.usage.sampled_tokens for t in alone),
        "largest difference of log-probs where tokens agree": worst, "errors": failed,
        "differences": [f"episode {d.episode} turn {d.turn} token {d.at}: logits within {d.margin:.1e}" for d in found],
        "ties": sum(d.margin <= TIE for d in found), "faults": sum(d.margin > TIE for d in found) + len(failed),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of `playhead world make`")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 0.0])
    args = parser.parse_args()
    agent = VideoAgent("embedded")
    agent.budget = replace(agent.budget, wall_s=None)  # a limit of time would depend on the machine
    result = compare(agent, read_tasks(args.data), args.temperatures, args.episodes)
    print(json.dumps(result, indent=1))
    return int(result["faults"] > 0 or result["token-equal"] < 0.99 * args.episodes)


if __name__ == "__main__":
    sys.exit(main())

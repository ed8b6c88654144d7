"""Trajectories of the oracle: the real agent on real films with its real tools, the oracle's words in the policy's place.

Nothing is converted: what is recorded is what the agent records of any policy, token by token, frames by content hash in
OUT/frames. Turns in which the oracle slips on purpose are marked as forced, so nobody is trained to make the mistake;
trajectories that do not end right are left out, and counted.

    python -m playhead.train.collect_oracle --data WORLD --out DIR --tokenizer CHECKPOINT

A killed run goes on where it was: episodes that are in OUT/trajectories.jsonl are not played again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..agent.embedded import EMBEDDED_PROFILE
from ..agent.policies.scripted import ScriptedPolicy
from ..agent.renderers.qwen3vl import Qwen3VLRenderer
from ..agent.video_agent import VideoAgent
from ..core.nouns import Task
from ..core.policy import GenerateRequest
from ..core.scoring import is_right
from ..core.tasks import read_tasks
from ..core.trajectory import Trajectory, read_trajectories, to_json
from ..world.oracle import Oracle
from ..world.script import HELD_OUT_SEED, make_scene

DIRECT_FRAMES = (8, 8, 8, 32, 64)


class Prompter:
    """A script that says what the oracle of the task in work would say."""

    def __init__(self) -> None:
        self.oracle: Oracle | None = None
        self.slips: list[int] = []
        self._turn = 0

    def start(self, oracle: Oracle) -> None:
        self.oracle, self.slips, self._turn = oracle, [], 0

    def __call__(self, request: GenerateRequest) -> str:
        assert self.oracle is not None, "an oracle has to be set before an episode"
        if self.oracle.is_slip(request.messages):
            self.slips.append(self._turn)
        self._turn += 1
        return self.oracle.reply(request.messages)


def oracle_of(task: Task, *, tools: bool, slips: float) -> Oracle:
    """The oracle of a task of the world, whose scene is made again from its seed.

    Raises:
        ValueError: the seed is held out.
    """
    seed = int(task.meta["seed"])
    if seed >= HELD_OUT_SEED:
        raise ValueError(f"task {task.id}: world seed {seed} is held out; train on seeds below {HELD_OUT_SEED}")
    scene = make_scene(seed, float(task.meta["minutes"]))
    return Oracle(task=task, scene=scene, seed=seed, tools=tools, slips=slips)


async def play(agent: VideoAgent, prompter: Prompter, task: Task, oracle: Oracle) -> Trajectory:
    """One episode with the oracle speaking; its slips are marked as forced."""
    prompter.start(oracle)
    trajectory = await agent.arun(task, run_id=task.id)
    turns = tuple(
        replace(t, completion=replace(t.completion, forced=True)) if t.index in prompter.slips else t
        for t in trajectory.turns
    )
    return replace(trajectory, turns=turns)


async def collect(
    tasks: Sequence[Task], out: Path, renderer: Qwen3VLRenderer, encoder: str, direct_share: float, slips: float
) -> Counter[str]:
    """Play every task that is not in `out` yet; returns how many were kept, wrong, failed or there before."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "trajectories.jsonl"
    done = {t.id for t in read_trajectories(path)} if path.exists() else set()
    prompter = Prompter()
    agents = {n: _agent(n, out, renderer, encoder, prompter) for n in (0, *sorted(set(DIRECT_FRAMES)))}
    count: Counter[str] = Counter()
    with path.open("a", encoding="utf-8") as file:
        for task in tasks:
            if task.id in done:
                count["there before"] += 1
                continue
            rng = random.Random(f"collect-{task.id}")
            frames = rng.choice(DIRECT_FRAMES) if rng.random() < direct_share else 0
            oracle = oracle_of(task, tools=frames == 0, slips=slips)
            trajectory = await play(agents[frames], prompter, task, oracle)
            verdict = "failed" if trajectory.error else "kept" if is_right(task, trajectory.answer) else "wrong"
            count[f"{verdict}, {task.kind}"] += 1
            if verdict == "kept":
                file.write(to_json(trajectory) + "\n")
                file.flush()
            elif trajectory.error:
                print(f"{task.id}: {trajectory.error}", flush=True)
    return count


def _agent(direct_frames: int, out: Path, renderer: Qwen3VLRenderer, encoder: str, prompter: Prompter) -> VideoAgent:
    """An agent with tools, or one that sees so many uniform frames and has none."""
    policy = ScriptedPolicy(renderer, prompter, name="oracle")
    skim = direct_frames or EMBEDDED_PROFILE.skim_frames
    return VideoAgent(
        policy,
        home=out,
        profile=EMBEDDED_PROFILE,
        encoder=encoder,
        skim_frames=skim,
        tools=() if direct_frames else None,
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tasks.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="checkpoint folder whose tokens are spoken")
    parser.add_argument("--encoder", default="embedded", help="what clip indexes are embedded with")
    parser.add_argument("--direct", type=float, default=0.12, help="share of episodes without tools")
    parser.add_argument("--slips", type=float, default=0.08, help="how often the oracle zooms into a wrong hit first")
    args = parser.parse_args(argv)
    renderer = Qwen3VLRenderer.from_checkpoint(args.tokenizer)
    count = asyncio.run(collect(read_tasks(args.data), args.out, renderer, args.encoder, args.direct, args.slips))
    for name, n in sorted(count.items()):
        print(f"{n:6d} {name}")


if __name__ == "__main__":
    main()

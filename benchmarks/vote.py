"""What a vote costs the model: n runs of the agent against one, in CPU seconds of the engine's thread, and how much was reused.

    playhead world make --out world --videos 2 --minutes 10 --seed 6000000
    OMP_NUM_THREADS=1 python -m playhead.benchmarks.vote --data world

Only the engine's thread is counted (prefill, sampling, vision), with one thread of arithmetic, so that other work on the
machine does not count. For each task one plain run and one vote are measured in turn, each with empty caches; `vote` runs
all n (it does not stop early), `early` stops when the rest cannot change the result.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

from playhead import Budget, Task, Usage, VideoAgent, read_tasks
from playhead.agent.scaling.spec import parse_strategy
from playhead.agent.scaling.strategy import Scaled

NO_LIMIT = Budget(turns=8, tool_calls=None, frames=None, sampled_tokens=None, wall_s=None)


class Meter:
    """Counts the CPU seconds of everything that the engine's thread does."""

    def __init__(self, engine: Any) -> None:
        self.seconds = 0.0
        turn = engine._turn

        def counted(items: Any) -> None:
            began = time.thread_time()
            try:
                turn(items)
            finally:
                self.seconds += time.thread_time() - began

        engine._turn = counted


async def measured(agent: VideoAgent, meter: Meter, spec: str, task: Task, n: int) -> tuple[float, Scaled]:
    """(CPU seconds, what came out), from empty caches."""
    policy: Any = agent.policy
    policy.weights_changed()  # drops every cache, that of frames too
    began = meter.seconds
    scaled = await parse_strategy(spec).run(agent, task, NO_LIMIT, concurrency=n)
    return meter.seconds - began, scaled


async def run(args: argparse.Namespace) -> None:
    agent = VideoAgent("embedded", home=args.home)
    meter = Meter(agent.policy.engine)  # pyright: ignore[reportAttributeAccessIssue]
    specs = {"one": "tools", "vote": f"vote(tools,n={args.n},early=no)", "early": f"vote(tools,n={args.n})"}
    seconds, usage = dict.fromkeys(specs, 0.0), {name: Usage() for name in specs}
    runs = dict.fromkeys(specs, 0)
    tasks = read_tasks(args.data)[: args.tasks]
    await measured(agent, meter, "tools", tasks[0], args.n)  # the first pass of a process is slow
    for task in tasks:
        for name, spec in specs.items():
            took, scaled = await measured(agent, meter, spec, task, args.n)
            seconds[name] += took
            usage[name] += scaled.usage
            runs[name] += len(scaled.trajectories)
        print(f"{task.id}: vote / one so far {seconds['vote'] / seconds['one']:.2f}", flush=True)
    print(f"\n{len(tasks)} tasks, n = {args.n}\n")
    print("| | runs | model CPU s | of one run | prompt tokens reused | prefilled | sampled | frames |")
    print("|---|---|---|---|---|---|---|---|")
    for name in specs:
        u = usage[name]
        share = u.reused_tokens / max(1, u.reused_tokens + u.prefill_tokens)
        ratio = seconds[name] / seconds["one"]
        cells = (
            f"{seconds[name]:.2f} | {ratio:.2f}x | {share:.1%} | {u.prefill_tokens} | {u.sampled_tokens} | {u.frames}"
        )
        print(f"| {name} | {runs[name]} | {cells} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder that `playhead world make` wrote")
    parser.add_argument("--tasks", type=int, default=14, help="the first so many")
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--home", type=Path, default=None, help="where indexes are kept")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

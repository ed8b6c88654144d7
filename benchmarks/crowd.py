"""Two hundred questions at once, one in ten requests to the model spoilt: who suffers from it besides?

    python -m playhead.benchmarks.crowd --data world                       # 200 questions, caches within 1 GB
    python -m playhead.benchmarks.crowd --data world --cache-mb 16 --context 2048 --questions 50

Whole questions: the agent with its real tools on real films, and the embedded model. Faults follow from a seed, the question
and the number of its request, and are of five kinds: the request is refused, a frame's pixels are gone, placeholders and
frames disagree, nobody waits any more (cancelled), no time is left. Which questions had one is written down. Then those that
had none are asked once more, all at once and without faults, by an engine that has forgotten everything (`--no-compare`: not).

Exit code 1 when a question does not end, or in neither an answer nor an error; when one that was not spoilt has an error, or
other tokens than without faults (but for ties within float noise, see `seeds.py`); when a request stays under way, or when
memory ever went over its bounds.

The bound must hold one sequence: a single context larger than it runs alone and goes over it, which is the engine's rule
(and fails here). The embedded model takes 5,120 bytes a token, with a quarter more while a cache grows; `--context` bounds the
tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from ..agent.embedded import checkpoint_dir
from ..agent.policies.transformers import TransformersPolicy
from ..agent.profile import load_profile
from ..agent.video_agent import VideoAgent
from ..core.errors import ModelError
from ..core.frames import FrameStore
from ..core.home import cache_dir
from ..core.nouns import Completion, Task
from ..core.policy import GenerateRequest
from ..core.tasks import read_tasks
from ..core.trajectory import Trajectory
from .seeds import TIE, first_difference

KINDS = ("refused", "frame gone", "frames missing", "cancelled", "no time")
LIMIT_S = 3600.0
"""A question that has not ended by then is lost."""


class Spoilt:
    """A policy of which a share of requests goes wrong."""

    exact = True

    def __init__(self, policy: TransformersPolicy, share: float, seed: int = 0) -> None:
        self.policy, self.share, self.seed = policy, share, seed
        self.name, self.renderer, self.store = policy.name, policy.renderer, policy.store
        self.requests, self.faults = Counter[str](), Counter[str]()
        """How many of each session, and of each kind."""
        self.runs: set[str] = set()
        """Those with a fault in them."""

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        return [await self._one(request) for request in requests]

    async def _one(self, request: GenerateRequest) -> Completion:
        kind = self._fault(request)
        if kind == "refused":
            raise ModelError("an injected fault")
        if kind == "frame gone" and request.frames:
            last = replace(request.frames[-1], sha256="0" * 64)
            request = replace(request, frames=(*request.frames[:-1], last))
        if kind == "frames missing":
            request = replace(request, frames=())
        if kind == "no time":
            request = replace(request, sampling=replace(request.sampling, timeout_s=0.0))
        asking = asyncio.ensure_future(self.policy.generate([request]))
        if kind == "cancelled":
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
            raise ModelError("an injected cancellation")
        (said,) = await asking
        return said

    def _fault(self, request: GenerateRequest) -> str | None:
        """What goes wrong with it, whenever it comes; None for nothing."""
        number = self.requests[request.session]
        self.requests[request.session] += 1
        numbers = Random(f"{self.seed} {request.session} {number}")
        if numbers.random() >= self.share:
            return None
        kind = numbers.choice(KINDS)
        self.faults[kind] += 1
        self.runs.add(request.session.split("/")[0])  # a tool that asks the model goes by its run's name and more
        return kind

    def forget(self, session: str) -> None:
        self.policy.forget(session)


async def ended(agent: VideoAgent, asked: Mapping[str, Task]) -> dict[str, Trajectory]:
    """The trajectories of runs, all at once; a run that did not end within `LIMIT_S` is left out."""

    async def one(run: str, task: Task) -> Trajectory | None:
        with suppress(TimeoutError):
            return await asyncio.wait_for(agent.arun(task, seed=int(run.split("-")[1]), run_id=run), LIMIT_S)

    found = await asyncio.gather(*(one(run, task) for run, task in asked.items()))
    return {run: trajectory for run, trajectory in zip(asked, found, strict=True) if trajectory is not None}


def crowd(
    tasks: Sequence[Task],
    count: int,
    *,
    cache_bytes: int,
    share: float = 0.1,
    context_tokens: int | None = None,
    compared: bool = True,
) -> dict[str, Any]:
    """`count` questions at once, of at most `context_tokens` each (None: the model's own limit); how they ended."""
    store = FrameStore(cache_dir() / "frames")
    policy = TransformersPolicy.load(checkpoint_dir(), store, name="embedded", cache_bytes=cache_bytes)
    spoilt = Spoilt(policy, share)
    agent = VideoAgent(spoilt, profile=load_profile(checkpoint_dir()), temperature=1.0)
    context_tokens = context_tokens or agent.budget.context_tokens
    agent.budget = replace(agent.budget, wall_s=None, context_tokens=context_tokens)
    asked = {f"run-{i}": replace(tasks[i % len(tasks)], id=f"question-{i}") for i in range(count)}
    began = time.perf_counter()
    runs = asyncio.run(ended(agent, asked))
    engine, until = policy.engine, time.monotonic() + 60
    while engine.under_way and time.monotonic() < until:  # what was cancelled last leaves at the next pass
        time.sleep(0.01)
    answers = {run for run, t in runs.items() if t.answer is not None and t.error is None}
    errors = {run for run, t in runs.items() if t.answer is None and t.error is not None}
    result = {
        "questions": count, "that ended": len(runs), "with an answer": len(answers), "with an error": len(errors),
        "spoilt": len(spoilt.runs), "errors of others": sorted(errors - spoilt.runs),
        "others without an answer": sorted(asked.keys() - spoilt.runs - answers),
        "requests": spoilt.requests.total(), "faults": dict(spoilt.faults),
        "stop reasons": dict(Counter(t.stop_reason.name for t in runs.values())),
        "errors": dict(Counter((t.error or "")[:60] for t in runs.values() if t.error)),
        "longest context, tokens": max(t.usage.context_tokens for t in runs.values()),
        "caches at most, MB": (engine.tree.peak_bytes if engine.tree is not None else 0) / 1e6, "bound, MB": cache_bytes / 1e6,
        "still under way": engine.under_way, "wall s": time.perf_counter() - began,
    }  # fmt: skip
    if compared:
        spoilt.share = 0.0
        policy.weights_changed()  # empties the caches
        others = {run: task for run, task in asked.items() if run not in spoilt.runs}
        result |= _compared(policy, runs, asyncio.run(ended(agent, others)))
    return result


def _compared(policy: TransformersPolicy, runs: dict[str, Trajectory], unharmed: dict[str, Trajectory]) -> dict[str, Any]:
    pairs = {run: (runs[run], unharmed[run]) for run in runs.keys() & unharmed.keys()}
    found = {run: d for run, (a, b) in pairs.items() if (d := first_difference(policy, 0, a, b))}
    return {
        "compared with a run without faults": len(pairs),
        "with the same answer": sum(a.answer == b.answer for a, b in pairs.values()),
        "with the same tokens": len(pairs) - len(found), "ties": sum(d.margin <= TIE for d in found.values()),
    }  # fmt: skip


def sound(r: dict[str, Any]) -> bool:
    """Every question ended, in one way, and no fault or bound was felt by another."""
    unspoilt = r["questions"] - r["spoilt"]
    pairs = r.get("compared with a run without faults")
    return (
        r["questions"] == r["that ended"] == r["with an answer"] + r["with an error"]
        and not r["errors of others"] and not r["others without an answer"]
        and (pairs is None or pairs == unspoilt == r["with the same tokens"] + r["ties"])
        and not r["still under way"] and r["caches at most, MB"] <= r["bound, MB"]
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of `playhead world make`")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--cache-mb", type=float, default=1000.0)
    parser.add_argument("--context", type=int, help="most tokens of one question's context; default: the model's own")
    parser.add_argument("--compare", action=argparse.BooleanOptionalAction, default=True, help="with a run without faults")
    args = parser.parse_args()
    bound = int(args.cache_mb * 1e6)
    tasks = read_tasks(args.data)
    result = crowd(tasks, args.questions, cache_bytes=bound, context_tokens=args.context, compared=args.compare)
    print(json.dumps(result, indent=1))
    return int(not sound(result))


if __name__ == "__main__":
    sys.exit(main())

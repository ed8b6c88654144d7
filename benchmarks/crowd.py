"""Two hundred questions at once, one in ten requests to the model spoilt: does each end, once, in an answer or an error?

    python -m playhead.benchmarks.crowd --data world                       # 200 questions, caches within 1 GB
    python -m playhead.benchmarks.crowd --data world --cache-mb 16 --context 2048 --questions 50

Whole questions: the agent with its real tools on real films, and the embedded model. Faults are drawn by a seed and are of
five kinds: the request is refused, a frame's pixels are gone, placeholders and frames disagree, nobody waits any more
(cancelled), no time is left. Exit code 1 when a question is lost or doubled, ends in neither, or memory went over its bounds.

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
from collections.abc import Sequence
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

KINDS = ("refused", "frame gone", "frames missing", "cancelled", "no time")


class Spoilt:
    """A policy of which a share of requests goes wrong."""

    exact = True

    def __init__(self, policy: TransformersPolicy, share: float, seed: int = 0) -> None:
        self.policy, self.share, self.numbers = policy, share, Random(seed)
        self.name, self.renderer, self.store = policy.name, policy.renderer, policy.store
        self.asked, self.peak_bytes, self.faults = 0, 0, Counter[str]()

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        return [await self._one(request) for request in requests]

    async def _one(self, request: GenerateRequest) -> Completion:
        self.asked += 1
        kind = self.numbers.choice(KINDS) if self.numbers.random() < self.share else None
        if kind is not None:
            self.faults[kind] += 1
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
        tree = self.policy.engine.tree
        self.peak_bytes = max(self.peak_bytes, tree.nbytes if tree is not None else 0)
        return said

    def forget(self, session: str) -> None:
        self.policy.forget(session)


def crowd(
    tasks: Sequence[Task], count: int, *, cache_bytes: int, share: float = 0.1, context_tokens: int | None = None
) -> dict[str, Any]:
    """`count` questions at once, of at most `context_tokens` each (None: the model's own limit); how they ended."""
    store = FrameStore(cache_dir() / "frames")
    policy = TransformersPolicy.load(checkpoint_dir(), store, name="embedded", cache_bytes=cache_bytes)
    spoilt = Spoilt(policy, share)
    agent = VideoAgent(spoilt, profile=load_profile(checkpoint_dir()), temperature=1.0)
    context_tokens = context_tokens or agent.budget.context_tokens
    agent.budget = replace(agent.budget, wall_s=None, context_tokens=context_tokens)
    asked = [replace(tasks[i % len(tasks)], id=f"question-{i}") for i in range(count)]

    async def all_at_once() -> list[Trajectory]:
        return await asyncio.gather(*(agent.arun(task, seed=i, run_id=f"run-{i}") for i, task in enumerate(asked)))

    began = time.perf_counter()
    ended = asyncio.run(all_at_once())
    engine, until = policy.engine, time.monotonic() + 60
    while engine.under_way and time.monotonic() < until:  # what was cancelled last leaves at the next pass
        time.sleep(0.01)
    return {
        "questions": count, "trajectories": len(ended), "different ones": len({t.id for t in ended}),
        "in their order": [t.task.id for t in ended] == [t.id for t in asked],
        "with an answer": sum(t.answer is not None and t.error is None for t in ended),
        "with an error": sum(t.answer is None and t.error is not None for t in ended),
        "requests": spoilt.asked, "faults": dict(spoilt.faults),
        "stop reasons": dict(Counter(t.stop_reason.name for t in ended)),
        "errors": dict(Counter((t.error or "")[:60] for t in ended if t.error)),
        "longest context, tokens": max(t.usage.context_tokens for t in ended),
        "caches at most, MB": spoilt.peak_bytes / 1e6, "bound, MB": cache_bytes / 1e6,
        "still under way": engine.under_way, "wall s": time.perf_counter() - began,
    }  # fmt: skip


def sound(r: dict[str, Any]) -> bool:
    return (
        r["questions"] == r["trajectories"] == r["different ones"] == r["with an answer"] + r["with an error"]
        and r["in their order"] and not r["still under way"] and r["caches at most, MB"] <= r["bound, MB"]
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of `playhead world make`")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--cache-mb", type=float, default=1000.0)
    parser.add_argument("--context", type=int, help="most tokens of one question's context; default: the model's own")
    args = parser.parse_args()
    bound = int(args.cache_mb * 1e6)
    result = crowd(read_tasks(args.data), args.questions, cache_bytes=bound, context_tokens=args.context)
    print(json.dumps(result, indent=1))
    return int(not sound(result))


if __name__ == "__main__":
    sys.exit(main())

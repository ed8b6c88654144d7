"""The agent at work during training: a few held-out tasks, played by the real agent with the weights as they are.

A loss says how well the recorded words are predicted; this says whether the model finds the answer when its own words decide
what it sees next. One process plays, the others wait and are told the scores, for all must choose the same checkpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..agent.policies.transformers import TransformersPolicy
from ..agent.profile import Profile
from ..agent.renderers.chat import ChatRenderer
from ..agent.video_agent import VideoAgent
from ..core.errors import DataError, ModelError
from ..core.frames import FrameStore
from ..core.home import cache_dir
from ..core.nouns import Task
from ..core.scoring import is_right
from ..core.tasks import read_tasks
from ..core.trajectory import Trajectory
from .sft_run import AgentEval


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentScores:
    """Means over the tasks."""

    accuracy: float
    answered: float
    """Share of episodes that ended with an answer."""
    frames: float
    turns: float

    def plain(self) -> dict[str, float]:
        return {"accuracy": self.accuracy, "answered": self.answered, "frames": self.frames, "turns": self.turns}


def evaluate_agent(
    model: Any, renderer: ChatRenderer, wanted: AgentEval, profile: Profile, accelerator: Any = None
) -> AgentScores:
    """Play the tasks with `model` (or the base of a PEFT model, adapter in place), greedily; it is left in training mode if
    it was.

    Raises:
        DataError: no task.
        ModelError: the weights are spread over processes, so that none can play alone.
    """
    if accelerator is not None and str(accelerator.distributed_type).endswith(("FSDP", "DEEPSPEED")):
        raise ModelError(
            "an agent eval during training needs whole weights in one process, and they are sharded here; run without it and "
            "evaluate the checkpoints with `playhead eval`"
        )
    scores: list[AgentScores | None] = [None]
    if accelerator is None or accelerator.is_main_process:
        scores[0] = _play(model, renderer, wanted, profile)
    if accelerator is not None and accelerator.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        broadcast_object_list(scores)
    assert scores[0] is not None
    return scores[0]


def _play(model: Any, renderer: ChatRenderer, wanted: AgentEval, profile: Profile) -> AgentScores:
    tasks = _spread(read_tasks(wanted.tasks), wanted.limit)
    if not tasks:
        raise DataError(f"{wanted.tasks}: no task to evaluate the agent on")
    home = wanted.home or cache_dir()
    whole = model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model
    was_training = whole.training
    try:
        policy = TransformersPolicy(whole, renderer, FrameStore(home / "frames"), name="in training")
        agent = VideoAgent(policy, home=home, profile=profile, encoder=wanted.encoder)
        done = asyncio.run(_run(agent, tasks, wanted.concurrent))
    finally:
        model.train(was_training)
    return AgentScores(
        accuracy=_mean([is_right(t.task, t.answer) for t in done]),
        answered=_mean([t.answer is not None for t in done]),
        frames=_mean([t.usage.frames for t in done]),
        turns=_mean([t.usage.turns for t in done]),
    )


async def _run(agent: VideoAgent, tasks: Sequence[Task], concurrent: int) -> list[Trajectory]:
    places = asyncio.Semaphore(concurrent)

    async def one(task: Task) -> Trajectory:
        async with places:
            return await agent.arun(task)

    return await asyncio.gather(*(one(t) for t in tasks))


def _spread(tasks: Sequence[Task], limit: int) -> list[Task]:
    """The first `limit` tasks, kind after kind in turn."""
    queues: dict[str, list[Task]] = {}
    for task in tasks:
        queues.setdefault(task.kind, []).append(task)
    turns = [q[i] for i in range(max(map(len, queues.values()), default=0)) for q in queues.values() if i < len(q)]
    return turns[:limit]


def _mean(values: Sequence[float | bool]) -> float:
    return sum(values) / len(values)

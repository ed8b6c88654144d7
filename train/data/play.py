"""Play: a job is played by its strategy, and what the run leaves becomes episodes.

    TASK.NUMBER            the episode of a run that came to one
    TASK.NUMBER-2of3       the second, by when it was started, of a run that came to three

Episodes are the runs of the agent that a strategy made, however they ended, and what came to an answer in another way (a
glance, a thought that was made longer). Calls beside them that answer nothing (a verdict, a critique, a caption) are none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...core.errors import DataError
from ...core.nouns import StopReason
from ...core.trajectory import Trajectory
from .jobs import Job, Limits
from .logbook import episode_id

if TYPE_CHECKING:
    from ...agent.scaling.strategy import Scaled
    from ...agent.video_agent import VideoAgent


async def play(
    agent: VideoAgent, jobs: Sequence[Job], limits: Limits, workers: int, note: Callable[[list[Trajectory]], None]
) -> None:
    """Play the jobs, at most `workers` episodes at once, and `note` the episodes of each run as it ends.

    Raises:
        DataError: a film is not the one that its tasks were made for.
    """
    queue, gate = iter(jobs), asyncio.Semaphore(workers)

    async def work() -> None:
        for job in queue:
            budget = replace(agent.given_budget or job.strategy.default_budget(agent.budget), **limits)
            scaled = await job.strategy.run(agent, job.task, budget, job.seed, concurrency=gate, run_id=job.id)
            episodes = episodes_of(job, scaled, agent.policy.name)
            for trajectory in episodes:
                _check_film(trajectory)
            note(episodes)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(workers, len(jobs))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def episodes_of(job: Job, scaled: Scaled, model: str) -> list[Trajectory]:
    """What a run left, by their names and in the order in which they were started. Where the run failed and no episode says
    so, one without a turn does: no failure goes unseen, and a run that failed is played again."""
    ran = [t for t in scaled.trajectories if t.answer is not None or t.stop_reason is not StopReason.ANSWERED]
    ran.sort(key=_started)
    error = scaled.error
    if error is None and not ran:
        error = f"{scaled.strategy} came to no episode ({scaled.stop_reason.value}); give it a larger --budget"
    if error is not None and all(t.error is None for t in ran):
        ran.append(_failed(job, scaled, error, model))
    return [replace(t, id=episode_id(job.id, i, len(ran))) for i, t in enumerate(ran, 1)]


def _started(trajectory: Trajectory) -> int:
    return int(trajectory.id.rpartition("-")[2])


def _failed(job: Job, scaled: Scaled, error: str, model: str) -> Trajectory:
    return Trajectory(
        id=job.id,
        group_id=job.task.id,
        task=job.task,
        stop_reason=StopReason.ERROR,
        budget=scaled.budget,
        error=error,
        seed=job.seed,
        model=model,
    )


def _check_film(trajectory: Trajectory) -> None:
    """Gold seconds belong to the content that they were made for: with another film they would count for nothing."""
    task = trajectory.task
    for frame, gold in zip(trajectory.frames[:1], task.evidence[:1], strict=False):
        if frame.video_id != gold.video_id:
            raise DataError(
                f"{task.video}: not the film that task {task.id} is about; make the world again in another folder"
            )

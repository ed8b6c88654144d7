"""Stream: a strategy's decisions as events while they are taken; `Finished` comes last, as with a plain run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ...core.nouns import Task
from ...core.trajectory import Trajectory, new_id
from ..events import Decided, Event, Finished
from .strategy import Scaled, Strategy

if TYPE_CHECKING:
    from ..video_agent import VideoAgent


async def scaled_events(agent: VideoAgent, task: Task, strategy: Strategy) -> AsyncIterator[Event]:
    """Every decision as it is taken, then how it ended. Leaving the loop early cancels what is under way."""
    queue: asyncio.Queue[Decided | None] = asyncio.Queue()
    running = asyncio.create_task(strategy.run(agent, task, tell=queue.put_nowait))
    running.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (decided := await queue.get()) is not None:
            yield decided
        yield finished(agent, await running)
    finally:
        running.cancel()


def finished(agent: VideoAgent, scaled: Scaled) -> Finished:
    """The end of a scaled run: the chosen trajectory, and a result that holds all."""
    from ..video_agent import Result

    trajectory = scaled.trajectory or _stand_in(agent, scaled)
    result = None
    if scaled.answer is not None:
        warnings = tuple(filter(None, [agent.profile.notice]))
        result = Result(answer=scaled.answer, trajectory=trajectory, warnings=warnings, scaled=scaled)
    return Finished(trajectory=trajectory, result=result)


def _stand_in(agent: VideoAgent, scaled: Scaled) -> Trajectory:
    """A trajectory without a turn, where no episode is behind the answer (or the error)."""
    return Trajectory(
        id=new_id(),
        group_id=scaled.task.id,
        task=scaled.task,
        answer=scaled.answer,
        stop_reason=scaled.stop_reason,
        budget=scaled.budget,
        usage=scaled.usage,
        error=scaled.error,
        seed=scaled.seed,
        model=agent.policy.name,
    )

"""What happens in a run, as it happens: how far the index is, then the events of the graph and its last state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from ..core.aio import in_thread
from ..core.errors import DataError
from .desk import Desk
from .events import Event, Indexing

if TYPE_CHECKING:
    from .episode import Episode


async def streamed(graph: Any, episode: Episode, start: Any, *, saved: bool, listening: bool) -> AsyncIterator[Any]:
    """Events of the graph, and its state (a dict) after every node; goes on from a checkpoint where there is one."""
    # The recursion limit counts nodes; our own limits end an episode long before.
    config = {"configurable": {"thread_id": episode.run_id}, "recursion_limit": 100_000}
    task, seed = start["task"], start["seed"]
    if saved:
        snapshot = await graph.aget_state(config)
        if snapshot.values:
            if (snapshot.values["task"].question, snapshot.values["seed"]) != (task.question, seed):
                raise DataError(f"run {episode.run_id} is saved with another question or seed; choose another run id")
            if not snapshot.next:
                yield snapshot.values
                return
            start = None
    how = {"durability": "sync"} if saved else {}
    modes = ["custom", "values"] if listening else ["values"]  # what is streamed wakes the loop each time
    async for _, chunk in graph.astream(start, config, context=episode, stream_mode=modes, **how):
        yield chunk


async def indexing(desk: Desk) -> AsyncIterator[Event]:
    """Build the index in a thread; yields how far it is, if there is anything to build."""
    loop, shares = asyncio.get_running_loop(), asyncio.Queue[float | None]()

    def tell(share: float | None) -> None:
        loop.call_soon_threadsafe(shares.put_nowait, share)

    def build() -> None:
        try:
            desk.lazy_index.ready(tell)
        finally:
            tell(None)

    building = asyncio.create_task(in_thread(build))
    while (share := await shares.get()) is not None:
        yield Indexing(share=share)
    await building

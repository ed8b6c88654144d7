"""Slots: so many at once and no more, over all event loops and threads. An `asyncio.Semaphore` belongs to one loop, and
`VideoAgent.ask` starts a loop for each question."""

from __future__ import annotations

import asyncio
import threading
from collections import deque


class Slots:
    """An asynchronous semaphore of `count` slots, shared by every loop; first come, first served. Use with `async with`."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
            if turn.done() and not turn.cancelled():  # cancelled between being given the slot and waking up
                self._release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        """Hand the slot to who has waited longest; a loop that has closed since wants none."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._free += 1
                    return
                turn = self._waiting.popleft()
            try:
                turn.get_loop().call_soon_threadsafe(self._give, turn)
                return
            except RuntimeError:
                continue

    def _give(self, turn: asyncio.Future[None]) -> None:
        """On the loop of who waits: only there may a future be touched."""
        if turn.done():
            self._release()
        else:
            turn.set_result(None)

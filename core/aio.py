"""From code that waits to code that awaits, and back.

    run_until_done(coroutine)          what a loop gives, for a caller who has none
    await in_thread(work, *arguments)  what a thread gives, for a loop that must go on meanwhile
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def run_until_done(coroutine: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, in a thread of its own where a loop already runs (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(coroutine))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


class Threads:
    """Threads for the work of loops, of each loop `at_once` pieces at the same time.

    Unlike with `asyncio.to_thread`, nobody waits for work that was given up (cancelled, or out of time): neither the end of the
    loop nor (for longer than `END_S`) the end of the program, both of which would wait for ever for a call into a library that
    never returns. Its place is free again at once.
    """

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self._places: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}

    async def run(self, work: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
        """`work(*args, **named)` in a thread."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def deliver(value: Any, error: BaseException | None) -> None:
            if done.done():  # given up meanwhile
                return
            if error is None:
                done.set_result(value)
            else:
                done.set_exception(error)

        def run() -> None:
            value, failure = None, None
            try:
                value = context.run(work, *args, **named)
            except StopIteration as error:  # a future cannot hold one
                failure = RuntimeError(f"{error!r} came out of a thread")
            except BaseException as error:
                failure = error
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(deliver, value, failure)

        async with self._of(loop):
            inbox = _idle_or_new()
            _busy.add(inbox)
            inbox.put(run)
            return await done

    def _of(self, loop: asyncio.AbstractEventLoop) -> asyncio.Semaphore:
        if loop not in self._places:
            for closed in [one for one in self._places if one.is_closed()]:
                self._places.pop(closed, None)
            self._places[loop] = asyncio.Semaphore(self.at_once)
        return self._places[loop]


AT_ONCE = min(32, (os.cpu_count() or 1) + 4)
in_thread = Threads(AT_ONCE).run
"""For work that computes: decoding, embedding."""
END_S = 1.0
"""How long the end of the program waits for work that is under way."""


_Inbox = SimpleQueue[Callable[[], None]]
_idle: list[_Inbox] = []
"""Of threads that have nothing to do. They are kept: a new one would make new threads in libraries, too (OpenMP)."""
_busy: set[_Inbox] = set()
os.register_at_fork(after_in_child=lambda: (_idle.clear(), _busy.clear()))


def _idle_or_new() -> _Inbox:
    with suppress(IndexError):
        return _idle.pop()
    inbox = _Inbox()
    threading.Thread(target=_serve, args=(inbox,), name="playhead-work", daemon=True).start()
    return inbox


def _serve(inbox: _Inbox) -> None:
    while True:
        inbox.get()()
        _busy.discard(inbox)
        _idle.append(inbox)


@atexit.register
def _let_end() -> None:
    """Work that ends while the interpreter shuts down can abort the process, so what is about to end is waited for."""
    end = time.monotonic() + END_S
    while _busy and time.monotonic() < end:
        time.sleep(0.01)

"""Work in threads: what comes out of it, and that nobody waits for what was given up."""

import asyncio
import multiprocessing
import subprocess
import sys
import threading
import time
from contextvars import ContextVar

import pytest
from playhead.core.aio import AT_ONCE, in_thread, run_until_done


def test_what_the_work_gives_or_raises_is_what_the_loop_gets():
    where = ContextVar("where", default="nowhere")

    def work(number: int, *, times: int) -> tuple[int, str, bool]:
        return number * times, where.get(), threading.current_thread() is threading.main_thread()

    def fail() -> None:
        raise KeyError("lost")

    def stop() -> None:
        raise StopIteration

    async def ask() -> None:
        where.set("here")
        assert await in_thread(work, 7, times=6) == (42, "here", False)
        with pytest.raises(KeyError, match="lost"):
            await in_thread(fail)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await in_thread(stop)

    run_until_done(ask())


def test_the_loop_goes_on_meanwhile_and_threads_are_used_again():
    names, under_way, most = set(), 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
            names.add(threading.current_thread().ident)
        time.sleep(0.01)
        with lock:
            under_way -= 1

    async def ask() -> None:
        await asyncio.gather(*(in_thread(work) for _ in range(3 * AT_ONCE)))

    for _ in range(3):
        run_until_done(ask())
    assert 1 < most <= AT_ONCE and len(names) <= 2 * AT_ONCE, "those of one loop serve the next"


def test_work_that_was_given_up_holds_up_neither_its_loop_nor_the_work_after_it():
    stuck = threading.Event()

    async def ask() -> list[int]:
        for _ in range(AT_ONCE + 1):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await in_thread(stuck.wait)
        return [await in_thread(sum, [n, n]) for n in range(3)]

    try:
        outcome: list[list[int]] = []
        asking = threading.Thread(target=lambda: outcome.append(run_until_done(ask())), daemon=True)
        asking.start()
        asking.join(30)
        assert outcome == [[0, 2, 4]]
    finally:
        stuck.set()


def test_nor_the_end_of_the_program():
    script = (
        "import asyncio, threading\n"
        "from playhead.core.aio import in_thread, run_until_done\n"
        "async def ask():\n"
        "    async with asyncio.timeout(0.1):\n"
        "        await in_thread(threading.Event().wait)\n"
        "try:\n"
        "    run_until_done(ask())\n"
        "except TimeoutError:\n"
        "    print('out of time')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out of time\n", "")


def test_a_forked_process_has_threads_of_its_own():
    async def ask() -> int:
        return await in_thread(sum, [1, 2])

    def child(out) -> None:
        out.put(run_until_done(ask()))

    assert run_until_done(ask()) == 3
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    process = context.Process(target=child, args=(out,))
    process.start()
    assert out.get(timeout=60) == 3
    process.join(60)

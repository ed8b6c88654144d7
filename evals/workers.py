"""Workers: tasks asked of an agent one after another, in this process or in several, each with whole videos.

Every job names its cell: what is asked how. All cells have one model, loaded once a process. Before each question the
policy's caches are emptied, so that what a question costs does not depend on what was asked before it, in which order, or
on where an interrupted run went on.

Worker processes end with the one that started them, even where that one is killed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from queue import Empty
from typing import TYPE_CHECKING, Any

from ..core.errors import DataError, PlayheadError
from ..core.nouns import Task
from ..core.trajectory import Trajectory, to_json
from .results import TaskResult, result_of_scaled

if TYPE_CHECKING:
    from ..agent.video_agent import VideoAgent
    from .manifest import Setup

Job = tuple[str, Task]
"""The key of a cell, and what is asked there."""
Note = Callable[[str, TaskResult, str | None], None]
"""Hears of every result: the key of its cell, the result, and the trajectory behind it as a line of JSON."""


def run_jobs(setups: Mapping[str, Setup], jobs: Sequence[Job], workers: int, note: Note) -> None:
    """Do all `jobs`; `note` is called in this process, for each as it is done.

    Raises:
        DataError: a film is not the one that its tasks were made for, or a worker died.
        ModelError: the model cannot be had.
    """
    if not jobs:
        return
    if workers == 1:
        agent = next(iter(setups.values())).agent()
        asyncio.run(run_here(agent, setups, jobs, note))
    else:
        _run_processes(setups, jobs, workers, note)


async def run_here(agent: VideoAgent, setups: Mapping[str, Setup], jobs: Sequence[Job], note: Note) -> None:
    """Ask every task in turn; an episode that fails is a wrong result with its reason, not a crash.

    Raises:
        DataError: a film is not the one that its tasks were made for.
    """
    forget_all = getattr(agent.policy, "weights_changed", lambda: None)  # a server's caches are its own affair
    for key, task in jobs:
        setup = setups[key]
        forget_all()
        scaled = await setup.plan.run(
            agent, task, setup.budget_of(agent), seed_of_task(setup.seed, task), concurrency=setup.concurrency
        )
        episode = scaled.trajectory or next(iter(scaled.trajectories[-1:]), None)
        if episode is not None:
            _check_film(task, episode)
        result = result_of_scaled(task, scaled, with_tools=setup.plan.uses_tools)
        note(key, result, None if episode is None else to_json(episode))


def seed_of_task(seed: int, task: Task) -> int:
    """A seed of its own for each task, the same in every run: with one for all, their random numbers would be the same too."""
    return (seed + zlib.crc32(task.id.encode())) % (1 << 31)


def _check_film(task: Task, trajectory: Trajectory) -> None:
    """Gold seconds belong to the content that they were made for: with another film they would count for nothing."""
    for frame, gold in zip(trajectory.frames[:1], task.evidence[:1], strict=False):
        if frame.video_id != gold.video_id:
            raise DataError(
                f"{task.video}: not the film that task {task.id} is about; make the world again in another folder"
            )


def shares(jobs: Sequence[Job], workers: int) -> list[list[Job]]:
    """The jobs split over at most `workers` lists of like length, all about one video in one list, in the order given."""
    by_video: dict[str, list[Job]] = {}
    for job in jobs:
        by_video.setdefault(job[1].video, []).append(job)
    out: list[list[Job]] = [[] for _ in range(min(workers, len(by_video)))]
    for group in sorted(by_video.values(), key=len, reverse=True):
        min(out, key=len).extend(group)
    order = {id(job): i for i, job in enumerate(jobs)}
    return [sorted(part, key=lambda job: order[id(job)]) for part in out]


def _work(setups: dict[str, Setup], jobs: list[Job], queue: Any) -> None:
    """The body of a worker process: ("result", key, TaskResult, line), then ("end", reason or None)."""
    _end_with_parent()
    try:
        agent = next(iter(setups.values())).agent()
        asyncio.run(run_here(agent, setups, jobs, lambda *done: queue.put(("result", *done))))
    except PlayheadError as error:
        queue.put(("end", str(error)))
    else:
        queue.put(("end", None))


def _end_with_parent() -> None:
    """A parent that is killed cannot end its daemons: they would work on, and write to nobody."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="playhead-parent", daemon=True).start()


def _run_processes(setups: Mapping[str, Setup], jobs: Sequence[Job], workers: int, note: Note) -> None:
    context = multiprocessing.get_context("spawn")  # a forked torch may hang
    queue = context.Queue()
    parts = shares(jobs, workers)
    with _threads_per_worker(len(parts)):
        processes = [context.Process(target=_work, args=(dict(setups), part, queue), daemon=True) for part in parts]
        for process in processes:
            process.start()
    running = len(processes)
    while running:
        try:
            word, *said = queue.get(timeout=1.0)
        except Empty:
            dead = [p for p in processes if p.exitcode not in (None, 0)]
            if dead:
                raise DataError(
                    f"a worker died (exit code {dead[0].exitcode}); run the same command again to go on"
                ) from None
            continue
        if word == "result":
            note(*said)
        elif said[0] is not None:
            raise DataError(said[0])
        else:
            running -= 1


@contextmanager
def _threads_per_worker(workers: int):
    """Processes started inside take their share of the cores: more threads than cores make everybody slow."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before

"""The world benchmark: tasks whose answers are known by construction, asked of an agent in one way.

    playhead world make --out DIR --videos 40 --minutes 20 --seed 1
    playhead eval world --data DIR --model embedded --strategy tools --out RUN
    playhead eval world --data DIR --model embedded --strategy direct --frames 32 --out RUN32

"tools" is the agent as users get it. "direct" shows the same model N uniform frames and gives it no tools, through the same
agent. Any other strategy of `agent/scaling` will do, and `grid.py` runs many of them beside each other. Runs are resumable
(see `Ledger`). Every question starts with empty caches. `wall_s` of a result is the time of its episode while its neighbours
ran: measure latency with one worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import DataError
from ..core.nouns import Task
from ..core.tasks import read_tasks
from .ledger import Ledger
from .manifest import IDENTITY, Setup, make_manifest
from .report import summarise
from .results import TaskResult
from .workers import run_jobs


def evaluate_world(
    data: Path,
    out: Path,
    setup: Setup,
    *,
    limit: int | None = None,
    workers: int = 1,
    on_result: Callable[[TaskResult, int, int], None] | None = None,
) -> tuple[dict[str, Any], list[TaskResult]]:
    """Run the tasks of `data` (a folder or a tasks.jsonl) that `out` has no result of; write and return the summary.

    Args:
        limit: only the first so many tasks, spread over the kinds.
        workers: processes, each with a model of its own.
        on_result: called with each new result, how many are done, and how many there are.

    Raises:
        DataError: bad tasks, or `out` holds a run of something else.
        ModelError: the model cannot be had.
    """
    tasks = chosen_tasks(data, limit, workers)
    manifest = make_manifest(data, setup, limit)
    with Ledger(out, manifest, IDENTITY) as ledger:

        def note(_: str, result: TaskResult, line: str | None) -> None:
            ledger.add(result, line)
            if on_result is not None:
                on_result(result, len(ledger.results), len(tasks))

        run_jobs({"": setup}, [("", t) for t in tasks if t.id not in ledger.results], workers, note)
        results = [ledger.results[t.id] for t in tasks]
        summary = summarise(results, manifest)
        ledger.write("summary.json", summary)
    return summary, results


def chosen_tasks(data: Path, limit: int | None, workers: int = 1) -> list[Task]:
    """Raises: DataError: no task, bad tasks, or no worker."""
    if workers < 1:
        raise DataError(f"--workers must be at least 1; got {workers}")
    tasks = spread(read_tasks(data), limit)
    if not tasks:
        raise DataError(f"{data}: no task in it")
    return tasks


def spread(tasks: Sequence[Task], limit: int | None) -> list[Task]:
    """The first `limit` tasks, taken kind by kind in turn so that a small run has every kind; all where it is None."""
    if limit is None:
        return list(tasks)
    by_kind: dict[str, list[Task]] = {}
    for task in tasks:
        by_kind.setdefault(task.kind, []).append(task)
    queues = list(by_kind.values())
    rounds = max((len(q) for q in queues), default=0)
    return [q[i] for i in range(rounds) for q in queues if i < len(q)][: max(0, limit)]

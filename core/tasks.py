"""Task files: one JSON line per `Task`; a relative `video` counts from the folder of the file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .codec import from_plain, to_plain
from .errors import DataError
from .nouns import Task
from .whole import write_whole


def write_tasks(path: Path, tasks: Iterable[Task]) -> int:
    """Write a task file whole; returns how many tasks it holds."""
    lines = [json.dumps(to_plain(task)) for task in tasks]
    write_whole(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def read_tasks(path: Path) -> list[Task]:
    """The tasks of a file (or of `tasks.jsonl` in a folder), with `video` made absolute.

    Raises:
        DataError: no such file, a bad record (file and line are named), or the same id twice.
    """
    path = path / "tasks.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"{path}: no such task file; make one with `playhead world make --out DIR`")
    tasks: dict[str, Task] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error})") from None
        task = from_plain(Task, data, where)
        if task.id in tasks:
            raise DataError(f"{where}: the task id {task.id!r} stands twice")
        tasks[task.id] = replace(task, video=str((path.parent / task.video).resolve()))
    return list(tasks.values())

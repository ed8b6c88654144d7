"""Ledger: the folder of a run, written line by line so that a run that stopped goes on where it was.

    RUN/manifest.json       what was measured: a resumed run must match it
    RUN/results.jsonl       one TaskResult a line; a task whose line stands here is done
    RUN/trajectories.jsonl  the episodes, token by token
    RUN/summary.json        written when the run is whole

A trajectory is written before its result, so a line of results.jsonl is the commit; what an interrupted run left after
its last whole result is dropped when the folder is opened again. One process at a time may hold a folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..core.codec import to_plain
from ..core.errors import DataError
from ..core.lock import lock_folder
from ..core.whole import write_json, write_whole
from .compare import read_results
from .results import TaskResult


class Ledger:
    """Open `root` for a run described by `manifest`; use as a context manager.

    `identity` names the keys of the manifest that must not change between two parts of a run.

    Raises:
        DataError: the folder holds a run of something else, is damaged, or is in use.
    """

    def __init__(self, root: Path, manifest: dict[str, Any], identity: tuple[str, ...]) -> None:
        self.root = root
        self._lock = lock_folder(root)
        self._check_manifest(manifest, identity)
        self.results: dict[str, TaskResult] = {r.task_id: r for r in self._read_results()}
        self._keep_known_trajectories()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def add(self, result: TaskResult, trajectory_line: str | None) -> None:
        """Note one episode (its trajectory as a line of JSON, where it left one); written when this returns."""
        if trajectory_line is not None:
            _append(self.root / "trajectories.jsonl", trajectory_line)
        _append(self.root / "results.jsonl", json.dumps(to_plain(result)))  # ASCII: models write anything
        self.results[result.task_id] = result

    def write(self, name: str, value: dict[str, Any]) -> Path:
        """Write a JSON file of the run whole."""
        return write_json(self.root / name, value)

    def _check_manifest(self, manifest: dict[str, Any], identity: tuple[str, ...]) -> None:
        path = self.root / "manifest.json"
        if not path.is_file():
            self.write("manifest.json", manifest)
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: not JSON ({error}); name another folder for the run") from None
        for key in identity:
            if before.get(key) != manifest.get(key):
                raise DataError(
                    f"{self.root} holds a run with {key} = {before.get(key)!r}, this one has {manifest.get(key)!r}; "
                    "name another folder for the run"
                )

    def _read_results(self) -> list[TaskResult]:
        path = self.root / "results.jsonl"
        _drop_half_line(path)
        if not path.is_file():
            return []
        return read_results(self.root)

    def _keep_known_trajectories(self) -> None:
        """Drop episodes without a result: their run was interrupted between the two lines."""
        path = self.root / "trajectories.jsonl"
        _drop_half_line(path)
        if not path.is_file():
            return
        last: dict[str, str] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            last[json.loads(line)["task"]["id"]] = line
        write_whole(path, "".join(f"{v}\n" for k, v in last.items() if k in self.results))


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as out:
        out.write(line + "\n")


def _drop_half_line(path: Path) -> None:
    """Cut what stands after the last newline: a line that its writer did not finish."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)

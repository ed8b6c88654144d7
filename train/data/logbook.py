"""Logbook: the folder in which a set of trajectories comes to be, written line by line so that a killed run goes on.

    DIR/episodes.jsonl   one trajectory a line, runs in the order in which they ended; of two with one id the later one counts
    DIR/verdicts.jsonl   what a verifier said of which episode
    DIR/manifest.json    what the run is of: another run is refused

A line is the commit: its frames are on disk before it, and half a line at the end (the process was killed) is dropped. A run
that left three episodes is there when RUN-1of3, RUN-2of3 and RUN-3of3 are; one that left one is called RUN.
One process at a time may hold a folder. In memory are only the places of the lines.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ...core.codec import to_plain
from ...core.errors import DataError
from ...core.lock import lock_folder
from ...core.nouns import Task, ToolSpec
from ...core.trajectory import Trajectory, from_json, to_json
from ...core.whole import write_json

SET_FILE = "trajectories.jsonl"
_PLACE = re.compile(r"(.+)-\d+of(\d+)")


def episode_id(run: str, place: int, of: int) -> str:
    """The name of the episode at `place` (from 1) of the `of` that a run left."""
    return run if of == 1 else f"{run}-{place}of{of}"


class Logbook:
    """Open `root` for the run that `identity` describes; use as a context manager.

    Raises:
        DataError: the folder holds something else, is damaged, or is in use.
    """

    def __init__(self, root: Path, identity: Mapping[str, object]) -> None:
        self.root, self.added = root, 0
        self._path = root / "episodes.jsonl"
        self._places: dict[str, int] = {}
        self._failed: set[str] = set()
        self._runs: dict[str, tuple[str, ...]] = {}
        """Run -> its episodes, of those that are there whole."""
        self._lock = lock_folder(root, "collects into it")
        try:
            self._check_manifest(dict(identity))
            self._scan()
        except BaseException:
            self._lock.close()
            raise
        self._file: IO[bytes] = self._path.open("ab")

    def __enter__(self) -> Logbook:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.close()

    @property
    def set_path(self) -> Path:
        return self.root / SET_FILE

    def is_done(self, run: str) -> bool:
        """Is it there, and did none of its episodes fail?"""
        return run in self._runs and self._failed.isdisjoint(self._runs[run])

    def add(self, episodes: Sequence[Trajectory]) -> None:
        """Note the episodes of a run; they are written when this returns."""
        for trajectory in episodes:
            place = self._file.tell()
            self._file.write(to_json(trajectory).encode() + b"\n")
            self._remember(trajectory.id, trajectory.error is not None, place)
        self._file.flush()
        self.added += 1

    def read(self, run: str, task: Task) -> list[Trajectory]:
        """The episodes of a run on a task; none where it is not there.

        Raises:
            DataError: they are of another question; the tasks have changed since they were played.
        """
        return [self._read(episode, task) for episode in self._runs.get(run, ())]

    def _read(self, episode: str, task: Task) -> Trajectory:
        with self._path.open("rb") as file:
            file.seek(self._places[episode])
            trajectory = from_json(file.readline().decode(), f"{self._path}, episode {episode}")
        if (trajectory.task.question, trajectory.task.answer) != (task.question, task.answer):
            raise DataError(f"{self.root}: task {task.id} has changed since episode {episode} was played; name another folder")
        return trajectory

    def verdicts(self, verifier: str) -> dict[str, bool]:
        """What this verifier said so far, by episode."""
        path = self.root / "verdicts.jsonl"
        _drop_half_line(path)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        said = (json.loads(line) for line in lines)
        return {v["episode"]: bool(v["same"]) for v in said if v["verifier"] == verifier}

    def add_verdicts(self, verifier: str, said: Mapping[str, bool]) -> None:
        with (self.root / "verdicts.jsonl").open("a", encoding="utf-8") as file:
            for episode, same in said.items():
                file.write(json.dumps({"episode": episode, "verifier": verifier, "same": same}) + "\n")

    def note_tools(self, specs: Sequence[ToolSpec]) -> None:
        """Which tools the policy is told of; exports tell it again."""
        path = self.root / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, {**manifest, "tools": [to_plain(s) for s in specs]})

    @contextmanager
    def writing_set(self) -> Iterator[Callable[[Trajectory], None]]:
        """Gives what writes a trajectory into the set; the set is there, whole, when the block has ended."""
        beside = self.root / f".{SET_FILE}.{os.getpid()}.part"
        try:
            with beside.open("w", encoding="utf-8") as file:
                yield lambda trajectory: print(to_json(trajectory), file=file)
            beside.replace(self.set_path)
        finally:
            beside.unlink(missing_ok=True)

    def _check_manifest(self, identity: dict[str, object]) -> None:
        path = self.root / "manifest.json"
        if not path.is_file():
            if (self.root / SET_FILE).exists():
                raise DataError(f"{self.root} holds trajectories that were not collected here; name another folder")
            write_json(path, identity)
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path}: not JSON ({error}); name another folder for the set") from None
        for key, value in identity.items():
            if before.get(key) != value:
                raise DataError(
                    f"{self.root} holds a set with {key} = {before.get(key)!r}, this one has {value!r}; name another folder"
                )

    def _scan(self) -> None:
        _drop_half_line(self._path)
        if not self._path.is_file():
            return
        place = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    data = json.loads(line)
                    self._remember(data["id"], data.get("error") is not None, place)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise DataError(f"{self._path}:{number}: not an episode ({error}); delete the line") from None
                place += len(line)

    def _remember(self, episode: str, failed: bool, place: int) -> None:
        self._places[episode] = place
        self._failed.discard(episode)
        if failed:
            self._failed.add(episode)
        found = _PLACE.fullmatch(episode)
        run, of = (episode, 1) if found is None else (found[1], int(found[2]))
        if of <= len(self._places):  # a line may say any number
            names = tuple(episode_id(run, i, of) for i in range(1, of + 1))
            if all(name in self._places for name in names):
                self._runs[run] = names


def _drop_half_line(path: Path) -> None:
    """What a killed run left after its last whole line."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)

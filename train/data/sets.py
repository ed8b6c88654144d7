"""Sets: reading trajectories from disk so that a bad record is named, or skipped and counted, and never learned from.

    playhead data validate DIR [--skip-bad] [--tokenizer CHECKPOINT]

A set is a folder with `trajectories.jsonl` and `frames/`, or such a file by itself. What is checked of each record:

    JSON, schema version, fields, turns in order       core/trajectory.py: from_json
    as many log-probs (mask bits) as sampled tokens     the same
    as many frames in the tokens as in the messages     the same
    the video is there (where it says one)
    the pixels of every frame are there, with their hash and size
    image placeholders fit the frames                   samples.check_sample, with a tokenizer
    no id twice

Schema versions: `Trajectory.schema_version` is a whole number that rises only when old readers would misread. A field that is
added does not raise it: an older file gets the field's default, an older reader ignores what it does not know. A record with
a version above the reader's is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.codec import from_plain, to_plain
from ...core.decoders.contract import DecodedFrame
from ...core.errors import DataError, PlayheadError
from ...core.frames import FrameStore
from ...core.nouns import Frame, ToolSpec
from ...core.trajectory import OnBad, Trajectory, read_trajectories, write_trajectories
from ...core.whole import write_json
from .card import Card, CardMaker
from .logbook import SET_FILE

if TYPE_CHECKING:
    from ...agent.renderers.chat import ChatRenderer

@dataclass(frozen=True, slots=True)
class TrajectorySet:
    """A set on disk.

    Raises:
        DataError: neither a folder of a set nor a file.
    """

    path: Path

    def __post_init__(self) -> None:
        if not self.file.is_file():
            raise DataError(f"{self.file}: no such file of trajectories; `playhead collect` makes one")

    @property
    def file(self) -> Path:
        return self.path / SET_FILE if self.path.is_dir() else self.path

    @property
    def folder(self) -> Path:
        """Where relative video paths count from, and where `frames` is."""
        return self.file.parent

    def store(self) -> FrameStore:
        return FrameStore(self.folder / "frames")

    def tools(self) -> tuple[ToolSpec, ...]:
        """What the policies of the set were told of, as its manifest says; playhead's own tools where nobody says.

        Raises:
            DataError: a damaged manifest.
        """
        path = self.folder / "manifest.json"
        try:
            manifest = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except ValueError as error:
            raise DataError(f"{path}: not JSON ({error})") from None
        if "tools" not in manifest:
            from ...tools.toolbox import default_toolbox

            return default_toolbox().specs
        return tuple(from_plain(ToolSpec, spec, str(path)) for spec in manifest["tools"])

    def read(self, on_bad: OnBad | None = None) -> Iterator[Trajectory]:
        """The trajectories, one at a time; only the records themselves are checked (see `validate` for their files).

        Args:
            on_bad: told of every bad record, which is then skipped; None to raise at the first.

        Raises:
            DataError: a bad record, by file and line.
        """
        return read_trajectories(self.file, on_bad)


@dataclass(slots=True)
class Validator:
    """Checks records together with the files that they refer to.

    Args:
        renderer: that of the model that the set is for; None to leave image placeholders unchecked.
        videos: whether videos have to be there (training needs only frames).
    """

    source: TrajectorySet
    renderer: ChatRenderer | None = None
    videos: bool = True
    _store: FrameStore = field(init=False)
    _sound: set[tuple[str, int, int]] = field(init=False, default_factory=set)
    _ids: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self._store = self.source.store()

    def read(self, on_bad: OnBad | None = None) -> Iterator[Trajectory]:
        """The sound trajectories of the set; arguments and errors as for `TrajectorySet.read`."""
        for trajectory in self.source.read(on_bad):
            try:
                self.check(trajectory)
            except DataError as error:
                if on_bad is None:
                    raise
                on_bad(error)
            else:
                yield trajectory

    def check(self, trajectory: Trajectory) -> None:
        """Raises: DataError: what is wrong with it, by its id."""
        where = f"{self.source.file}, trajectory {trajectory.id}"
        if trajectory.id in self._ids:
            raise DataError(f"{where}: the id stands twice")
        self._ids.add(trajectory.id)
        video = trajectory.task.video
        if self.videos and video and not (self.source.folder / Path(video).expanduser()).is_file():
            raise DataError(f"{where}: its video {video} is missing")
        for frame in trajectory.frames:
            self._check_frame(frame, where)
        if self.renderer is not None and trajectory.exact and trajectory.turns:
            from ..samples import sample_of

            try:
                sample_of(trajectory, self.renderer, self.renderer.image_token_id)
            except DataError as error:
                raise DataError(f"{self.source.file}: {error}") from None

    def _check_frame(self, frame: Frame, where: str) -> None:
        key = (frame.sha256, frame.width, frame.height)
        if key in self._sound:
            return
        try:
            height, width, _ = self._store.pixels(frame).shape
        except PlayheadError as error:
            raise DataError(f"{where}: {error}") from None
        if (width, height) != (frame.width, frame.height):
            raise DataError(
                f"{where}: frame {frame.sha256[:12]} is {width}x{height}, the record says {frame.width}x{frame.height}"
            )
        self._sound.add(key)


def write_set(
    out: Path, trajectories: Iterable[Trajectory], tools: Sequence[ToolSpec] = (), frames: FrameStore | None = None
) -> Card:
    """Write a set that was not played here: OUT/trajectories.jsonl, its card, and what its policies were told of.

    Args:
        frames: where the pixels are, if not in OUT/frames already.

    Raises:
        DataError: OUT holds a set already.
        UnknownFrame: the store lacks a frame.
    """
    if (out / SET_FILE).exists():
        raise DataError(f"{out} holds a set already; name another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{out}: not a folder; name another one for the set") from None
    maker, own = CardMaker(), FrameStore(out / "frames")

    def noted() -> Iterator[Trajectory]:
        for trajectory in trajectories:
            if frames is not None:
                copy_frames(trajectory, frames, own)
            maker.add(trajectory)
            yield trajectory

    if tools:
        write_json(out / "manifest.json", {"tools": [to_plain(spec) for spec in tools]})
    write_trajectories(out / SET_FILE, noted())
    card = maker.card()
    card.write(out)
    return card


def copy_frames(trajectory: Trajectory, source: FrameStore, target: FrameStore) -> None:
    """Every frame that a trajectory shows, also after its last turn, from one store into another.

    Raises:
        UnknownFrame: the source lacks one.
    """
    shown = (*trajectory.frames, *(f for o in trajectory.observations for f in o.frames))
    for frame in {f.sha256: f for f in shown}.values():
        target.put(frame.video_id, DecodedFrame(timestamp_s=frame.timestamp_s, pixels=source.pixels(frame)))

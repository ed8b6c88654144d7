"""Episodes: the folders of recorded trajectories that trainers read, as samples, with everything bad found before training.

    DIR/trajectories.jsonl      one trajectory a line (core.trajectory)
    DIR/frames/                 the frame store with the frames that they show

That is what `playhead collect` writes. A bad record (no JSON, a schema that is too new, a mask or
images that do not fit, a frame that is missing, tokens of another tokenizer) is refused with its place and reason, or left
out and counted where the caller asks for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..agent.renderers.chat import ChatRenderer
from ..core.errors import DataError
from ..core.frames import FrameStore, UnknownFrame
from ..core.nouns import Frame
from ..core.trajectory import Trajectory, read_each
from .samples import TrainingSample, sample_of

FILE, FRAMES = "trajectories.jsonl", "frames"


@dataclass(frozen=True, slots=True)
class Stores:
    """Several frame stores as one: a frame is known by its content, so any of them may have it."""

    stores: tuple[FrameStore, ...]

    def pixels(self, frame: Frame) -> np.ndarray:
        """Raises: UnknownFrame: none has it."""
        for store in self.stores[:-1]:
            try:
                return store.pixels(frame)
            except UnknownFrame:
                continue
        return self.stores[-1].pixels(frame)

    def __contains__(self, frame: Frame) -> bool:
        return any(frame in store for store in self.stores)


@dataclass(kw_only=True, slots=True)
class Episodes:
    """Samples, where their pixels are, and what was left out."""

    samples: tuple[TrainingSample, ...]
    store: Stores
    skipped: list[str] = field(default_factory=list)
    """What was wrong with each record that was left out."""

    def split(self, every: int) -> tuple[tuple[TrainingSample, ...], tuple[TrainingSample, ...]]:
        """(to train on, held out): every `every`-th sample is held out; none when 0."""
        if not every:
            return self.samples, ()
        train = tuple(s for i, s in enumerate(self.samples) if i % every)
        return train, self.samples[::every]


def read_episodes(
    folders: Sequence[Path],
    renderer: ChatRenderer,
    *,
    skip_bad: bool = False,
    keep: Callable[[Trajectory], bool] | None = None,
) -> Episodes:
    """The samples of all folders, in order; an id that comes again gets a number behind it.

    Args:
        keep: trajectories for which it is False are left out without a word.

    Raises:
        DataError: a folder without trajectories, no sample at all, or (unless `skip_bad`) the first bad record.
    """
    if not folders:
        raise DataError("no folder of trajectories was named (--data DIR)")
    store = Stores(tuple(FrameStore(folder / FRAMES) for folder in folders))
    done = Episodes(samples=(), store=store)
    samples: list[TrainingSample] = []

    def sample(trajectory: Trajectory, where: str) -> TrainingSample | None:
        return checked_sample(trajectory, renderer, store, where) if keep is None or keep(trajectory) else None

    for folder in folders:
        path = folder / FILE if folder.is_dir() else folder
        if not path.is_file():
            raise DataError(f"{path}: no such file of trajectories; `playhead collect` writes such folders")
        made = read_each(path, sample, (lambda error: done.skipped.append(str(error))) if skip_bad else None)
        samples += [s for s in made if s is not None]
    if not samples:
        raise DataError(f"{', '.join(map(str, folders))}: no trajectory to train on ({len(done.skipped)} bad ones)")
    done.samples = _with_own_ids(samples)
    return done


def checked_sample(trajectory: Trajectory, renderer: ChatRenderer, store: Stores, where: str) -> TrainingSample:
    """The sample of a trajectory whose tokens and frames this model can take.

    Raises:
        DataError: it breaks an invariant (`samples.sample_of`), has tokens outside the vocabulary, or shows a frame that
            the store lacks; `where` and the trajectory are named.
    """
    try:
        sample = sample_of(trajectory, renderer, renderer.image_token_id)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    vocabulary = len(renderer.tokenizer)
    if not 0 <= min(sample.token_ids_T) <= max(sample.token_ids_T) < vocabulary:
        raise DataError(
            f"{where}: {sample.id} has tokens outside the {vocabulary} of this tokenizer: it was recorded with another"
        )
    missing = next((f for f in sample.frames_F if f not in store), None)
    if missing is not None:
        raise DataError(
            f"{where}: trajectory {sample.id} shows a frame at {missing.timestamp_s:.1f} s of video {missing.video_id[:12]} "
            f"that is not in the frame store"
        )
    return sample


def _with_own_ids(samples: Sequence[TrainingSample]) -> tuple[TrainingSample, ...]:
    """Every id once: a later sample of a known id gets a number behind it."""
    seen: dict[str, int] = {}
    out = []
    for sample in samples:
        n = seen[sample.id] = seen.get(sample.id, 0) + 1
        out.append(sample if n == 1 else replace(sample, id=f"{sample.id}#{n}"))
    return tuple(out)

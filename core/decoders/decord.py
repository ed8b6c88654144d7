"""The second decoder: decord, for sound files, by frame timestamps (never `index = t * fps`).

What is mended here, each found on a file of the contract suite:
- its timestamps are 32-bit floats that count from its first frame: the exact ones come from the packets, and must agree;
- its seeks (`get_batch`, `skip_frames`) give other frames than asked in files of variable rate, with open groups of pictures
  (common in HEVC) or with gradual refresh: it seeks only in H.264 of constant rate whose every keyframe is a clean start
  (IDR), and reads on elsewhere, which is slow but right;
- in MPEG-TS it loses the first frames without a word: only containers with an index are given to it;
- it takes what it believes to be the best stream: another one than ours is refused;
- its own scaling fails on some small sizes: it decodes at full size, scaling is ours.

It gives no partial result: where a file is known to be damaged, or decord fails, the error says so and names the other
decoder. Its calls run in a thread with a time limit, because some files make it wait for ever; such a thread is left behind.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import decord
import numpy as np
from decord.logging import QUIET, set_level

from ..errors import VideoError
from .contract import DecodedFrame, Track
from .picture import resize
from .pyav import Reader

T = TypeVar("T")

_BATCH = 16
_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
# Its default is 10,240 rounds without a frame, minutes of waiting on files that it cannot finish.
os.environ.setdefault("DECORD_EOF_RETRY_MAX", "1024")
set_level(QUIET)


class _Reader:
    """A file open in decord, with its frames' times in our seconds."""

    def __init__(self, track: Track, size: tuple[int, int] | None) -> None:
        if track.damaged:
            raise VideoError(f"{track.path}: is damaged, and decord reads only sound files; use decoder='pyav'")
        self._track = track
        self._size = size or (track.width, track.height)
        with Reader(track, quiet=True) as packets:
            if packets.container_name not in _CONTAINERS:
                raise VideoError(
                    f"{track.path}: decord cannot be trusted with {packets.container_name}; use decoder='pyav'"
                )
            stamps, keys, clean = packets.timeline()
        self._video: Any = self._limited(lambda: decord.VideoReader(str(track.path)))
        starts = self._limited(lambda: self._video.get_frame_timestamp(np.arange(len(self._video))))
        self._pts = np.asarray(stamps, np.int64)
        self._keys = np.searchsorted(self._pts, keys).tolist()
        own = (self._pts - self._pts[0]) * float(track.time_base)
        if len(own) != len(starts) or np.abs(starts.reshape(-1, 2)[:, 0] - own).max() > max(2e-3, own[-1] * 1e-6):
            raise VideoError(f"{track.path}: decord sees other frames in it than its packets say; use decoder='pyav'")
        gaps = np.diff(self._pts)
        self._may_seek = clean and (len(gaps) == 0 or int(gaps.max() - gaps.min()) <= 2)
        self._next = 0

    def index_at(self, t_s: float) -> int:
        """The frame shown at `t_s`."""
        return max(0, int(np.searchsorted(self._pts, self._track.pts(t_s), side="right")) - 1)

    def index_from(self, t_s: float) -> int:
        """The first frame after those that start before `t_s`."""
        stop = self.index_at(t_s)
        return stop if self._track.seconds(int(self._pts[stop])) >= t_s else stop + 1

    def frames(self, indices: Iterable[int]) -> Iterator[DecodedFrame]:
        """The frames of `indices`, which must not go backwards."""
        indices, made = iter(indices), dict[int, DecodedFrame]()
        while batch := list(islice(indices, _BATCH)):
            made = {i: f for i, f in made.items() if i >= batch[0]}
            wanted = sorted(set(batch) - made.keys())
            pixels = self._limited(lambda wanted=wanted: self._pixels(wanted))
            made |= {
                i: DecodedFrame(timestamp_s=self._track.seconds(int(self._pts[i])), pixels=self._fit(p))
                for i, p in zip(wanted, pixels, strict=True)
            }
            yield from (made[i] for i in batch)

    def _pixels(self, wanted: list[int]) -> Sequence[np.ndarray]:
        if self._may_seek:
            return self._video.get_batch(wanted).asnumpy() if wanted else ()
        found = []
        for i in wanted:
            for _ in range(self._next, i):
                self._video.next()
            found.append(self._video.next().asnumpy())
            self._next = i + 1
        return found

    def _fit(self, pixels: np.ndarray) -> np.ndarray:
        track, (height, width, _) = self._track, pixels.shape
        # Square pixels make the width ours; a stream with another shape is not the one that was asked for.
        if height != track.height and width != track.width:
            raise VideoError(f"{track.path}: decord takes another stream of it ({width}x{height}); use decoder='pyav'")
        return resize(np.ascontiguousarray(pixels), self._size)

    def keyframe_before(self, index: int) -> int:
        return max((k for k in self._keys if k <= index), default=0)

    def _limited(self, work: Callable[[], T]) -> T:
        """`work()` in a thread, for at most `stall_s`."""
        done: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                done.put((work(), None))
            except (
                Exception
            ) as error:  # decord raises RuntimeError, its own DECORDError (a plain Exception), and others
                done.put((None, error))

        threading.Thread(target=run, name="decord", daemon=True).start()
        try:
            value, error = done.get(timeout=self._track.stall_s)
        except queue.Empty:
            raise VideoError(
                f"{self._track.path}: decord did not answer for {self._track.stall_s:g} s; use decoder='pyav'"
            ) from None
        if error is not None:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise VideoError(f"{self._track.path}: decord cannot read it ({reason}); use decoder='pyav'") from None
        return value  # type: ignore[return-value]


class DecordDecoder:
    """See the module and `Decoder`."""

    name = "decord"

    def shown(self, track: Track, times_s: Iterable[float], size: tuple[int, int] | None) -> Iterator[DecodedFrame]:
        reader = _Reader(track, size)
        yield from reader.frames(reader.index_at(t) for t in times_s)

    def every(self, track: Track, start_s: float, end_s: float, size: tuple[int, int] | None) -> Iterator[DecodedFrame]:
        reader = _Reader(track, size)
        first = reader.index_at(start_s)
        yield from reader.frames(range(first, max(first + 1, reader.index_from(end_s))))

    def keyframes(self, track: Track, times_s: Iterable[float], size: tuple[int, int] | None) -> Iterator[DecodedFrame]:
        reader = _Reader(track, size)
        yield from reader.frames(reader.keyframe_before(reader.index_at(t)) for t in times_s)

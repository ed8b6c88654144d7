"""The contract between a video and its decoders, and the one clock that all of them keep.

Seconds count from the start of the file's presentation: zero is where a player's slider starts, the earliest start of
any stream (FFmpeg's `start_time`, the zero of `ffmpeg -ss`). A file whose only stream starts at PTS 1.075 s therefore
starts at 0.0 s here; a file whose sound starts at 0 and whose picture starts at 0.5 s has its first frame at 0.5 s. A
negative start (the priming of an audio codec) moves nothing.

The frame shown at `t` is the last one that starts at or before `t`; before the first frame it is the first, after the
last one the last. A time within a microsecond before a frame's start counts as that start, so that times which went
through floats find their frame again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import VideoError

TOLERANCE_S = Fraction(1, 1_000_000)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DecodedFrame:
    """Pixels with the time at which they appear on screen.

    `pixels` is (height, width, 3) uint8, RGB, upright, square pixels, C-contiguous. It may be shared: do not write to it.
    """

    timestamp_s: float
    pixels: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """The one stream of a file that is read, and its clock.

    `zero` is the presentation time (seconds, as stored in the file) that counts as 0 s here, `first_pts` the timestamp of
    the first frame. `width` and `height` are those of an upright frame with square pixels. `stall_s`: how long decoding
    may go on without any frame. `damaged`: damage was found on opening, and told.
    """

    path: Path
    stream: int
    time_base: Fraction
    zero: Fraction
    first_pts: int = 0
    width: int = 0
    height: int = 0
    stall_s: float
    damaged: bool = False

    def seconds(self, pts: int) -> float:
        """Presentation time of a timestamp of the stream, in seconds."""
        return float(pts * self.time_base - self.zero)

    def pts(self, t_s: float) -> int:
        """The largest timestamp of the stream that is not after `t_s` (with the tolerance above)."""
        return math.floor((Fraction(t_s) + self.zero + TOLERANCE_S) / self.time_base)


class Decoder(Protocol):
    """Reads frames of a track. `size` is (width, height) of the upright result; None keeps the track's own.

    All three raise `VideoError` when the file cannot be read, or when decoding stalls for `track.stall_s`.
    """

    @property
    def name(self) -> str: ...

    def shown(self, track: Track, times_s: Iterable[float], size: tuple[int, int] | None) -> Iterator[DecodedFrame]:
        """The frame shown at each time, one for each; the times must not go backwards."""
        ...

    def every(self, track: Track, start_s: float, end_s: float, size: tuple[int, int] | None) -> Iterator[DecodedFrame]:
        """The frame shown at `start_s`, then each one that appears before `end_s`."""
        ...

    def keyframes(self, track: Track, times_s: Iterable[float], size: tuple[int, int] | None) -> Iterator[DecodedFrame]:
        """For each time a keyframe at or before it (the first one where there is none); cheap and early."""
        ...


class Stall:
    """A limit on time without progress: consumers may be slow, a decoder that yields nothing may not.

    It is looked at between packets; one call into FFmpeg cannot be interrupted (reads from a dead disk can, they have the
    same limit). Pictures have a largest size, so one call is short.
    """

    def __init__(self, track: Track) -> None:
        self._track = track
        self.progress()

    def progress(self) -> None:
        self._last = time.monotonic()

    def check(self) -> None:
        """Raises `VideoError` when nothing came for the track's `stall_s`."""
        if time.monotonic() - self._last > self._track.stall_s:
            raise VideoError(f"{self._track.path}: decoding gave no frame for {self._track.stall_s:g} s; given up")

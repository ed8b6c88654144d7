"""Video: a file, opened. Frames by presentation time, upright, with square pixels, from whatever FFmpeg can read.

    video = Video.open("film.mp4")
    first, middle = video.frames_at([0.0, video.duration_s / 2], size=(224, 224))
    for frame in video.read(60.0, 70.0, fps=4): ...

The clock is that of `decoders.contract`: seconds from the start of the file's presentation; the frame shown at `t` is the
one whose display interval holds `t`, and `DecodedFrame.timestamp_s` is when that frame appears. Times before the first
frame give the first, times after the last readable one give the last. A `Video` holds no open handle: it is small, it can
be pickled and used from several threads at once.

Damage: what can be read is read. `warnings` tells what was found on opening, `readable_s` how far frames go; damage met
later, in the middle of a long film, is a Python `VideoWarning`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .clip import Clip
from .decoders import DECODERS, DecodedFrame, Track, load_decoder
from .errors import VideoError
from .probe import Facts, Stream, check_file, probe
from .sampling import fps_times, uniform_times

__all__ = ["DecodedFrame", "Stream", "Video"]

STALL_S = 30.0
"""Decoding that gives no frame for so long is given up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """A video file. `width` and `height` are those of an upright frame with square pixels.

    `duration_s` is where the picture's last frame ends; `readable_s` is less where the file is cut off or damaged at its
    end. `fps` is an average, for display and defaults: times never depend on it.
    """

    id: str
    """SHA-256 of the file's content, in hex."""
    path: Path
    duration_s: float
    readable_s: float
    fps: float
    width: int
    height: int
    streams: tuple[Stream, ...]
    warnings: tuple[str, ...] = ()
    track: Track
    decoder: str = "pyav"

    @classmethod
    def open(cls, path: str | Path, *, decoder: str = "pyav", stall_s: float = STALL_S) -> Video:
        """Look at a file; costs reading it once (for its hash) and decoding a few frames.

        Raises:
            VideoError: one line that says which file, what is wrong, and what was readable.
        """
        if decoder not in DECODERS:
            raise VideoError(f"there is no decoder {decoder!r}; choose one of {', '.join(DECODERS)}")
        path = Path(path).expanduser().absolute()
        facts: Facts = probe(path, stall_s)
        return cls(
            id=content_hash(path),
            path=path,
            duration_s=facts.duration_s,
            readable_s=facts.readable_s,
            fps=facts.fps,
            width=facts.track.width,
            height=facts.track.height,
            streams=facts.streams,
            warnings=facts.warnings,
            track=facts.track,
            decoder=decoder,
        )

    @property
    def clip(self) -> Clip:
        """All of the video that can be read."""
        return Clip(video_id=self.id, start_s=0.0, end_s=self.readable_s)

    def frames_at(self, times_s: Sequence[float], size: tuple[int, int] | None = None) -> list[DecodedFrame]:
        """The frame shown at each time, in the order asked. `size` is (width, height); None keeps the video's own.

        Raises:
            ValueError: a time that is not a finite number.
            VideoError: the file cannot be decoded there.
        """
        order = sorted(range(len(times_s)), key=lambda i: times_s[i])
        times = [self._inside(times_s[i]) for i in order]
        found: list[DecodedFrame | None] = [None] * len(times)
        for i, frame in zip(order, load_decoder(self.decoder).shown(self.track, times, size), strict=True):
            found[i] = frame
        return [f for f in found if f is not None]

    def read(
        self, start_s: float, end_s: float, fps: float | None, size: tuple[int, int] | None = None
    ) -> Iterator[DecodedFrame]:
        """Frames of `[start_s, end_s)` in order: those shown at `start_s`, `start_s + 1/fps`, ...; every frame with fps None.

        The stretch is cut to what is readable; an empty one gives nothing. A frame that is shown at several of the
        times is given several times.
        """
        start_s, end_s = self._inside(start_s), self._inside(end_s)
        if start_s >= end_s:
            return iter(())
        source = load_decoder(self.decoder)
        if fps is None:
            return source.every(self.track, start_s, end_s, size)
        return source.shown(self.track, fps_times(start_s, end_s, fps), size)

    def keyframes_at(self, times_s: Iterable[float], size: tuple[int, int] | None = None) -> list[DecodedFrame]:
        """For each time, in order, a keyframe at or before it: a cheap skim, some seconds early.

        Each is labelled with its own true time. Neighbouring times may give the same frame.
        """
        times = sorted(self._inside(t) for t in times_s)
        return list(load_decoder(self.decoder).keyframes(self.track, times, size))

    def skim(self, n: int, size: tuple[int, int] | None = None) -> list[DecodedFrame]:
        """At most `n` different keyframes spread over the video."""
        frames = self.keyframes_at(uniform_times(self.readable_s, n), size)
        return [f for i, f in enumerate(frames) if i == 0 or f.timestamp_s != frames[i - 1].timestamp_s]

    def _inside(self, t_s: float) -> float:
        if not math.isfinite(t_s):
            raise ValueError(f"a time must be a finite number of seconds; got {t_s}")
        return min(max(0.0, t_s), self.readable_s)


def content_hash(path: Path) -> str:
    """SHA-256 of a file, read in pieces.

    Raises:
        VideoError: the file cannot be read.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error})") from None

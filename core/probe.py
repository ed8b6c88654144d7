"""What a file holds, and how much of it can be read: the facts behind `Video.open`, found without decoding a whole film.

Always: the container opens, it has a picture stream, a first frame decodes, the packets at the end are there.
Short files (under `VERIFY_PIXELS` of pictures) are decoded whole, so damage in their middle is known at once; a long
film's is met while reading, as a `VideoWarning`. Nothing here trusts a header where the stream itself can be asked.
"""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition
from av.stream import Stream as AnyStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .decoders.contract import TOLERANCE_S, Track
from .decoders.picture import MAX_PIXELS, upright_size
from .decoders.pyav import Reader, open_container
from .errors import VideoError

VERIFY_PIXELS = 300_000_000
"""Up to so many pixels (1,300 frames of 640x360, under a second of work) a file is decoded whole when it is opened."""


_FIRST_LOOK = 12
"""So many frames are decoded of every file: enough to see B-frames out of order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """One stream of a container. `kind` is "video", "audio", "subtitle", "data" or "attachment"."""

    index: int
    kind: str
    codec: str
    language: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What `probe` found; the fields of `Video` that do not depend on its content hash."""

    track: Track
    streams: tuple[Stream, ...]
    duration_s: float
    readable_s: float
    fps: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Headers:
    """What the container claims."""

    end_s: float | None
    """Where the picture ends, in our seconds."""
    end_covers_sound: bool
    fps: float
    frames: int


def probe(path: Path, stall_s: float) -> Facts:
    """Look at a file.

    Raises:
        VideoError: it is missing, is no video, or nothing in it can be decoded.
    """
    check_file(path)
    try:
        with open_container(str(path), stall_s) as container:
            stream = _choose_stream(path, container)
            streams = tuple(_describe(s) for s in container.streams)
            track = _track(path, container, stream, stall_s)
            headers = _headers(container, stream, track)
    except (av.error.FFmpegError, OSError, MemoryError) as error:
        raise VideoError(f"{path}: {_explain(path, error)}") from None
    with Reader(track, quiet=True) as reader:
        first = _first_frame(track, reader)
        width, height = upright_size(first, reader.pixel_shape)
        measured = _measure(track, reader, headers, first.width * first.height)
    track = replace(track, first_pts=first.pts or 0, width=width, height=height, damaged=bool(measured.warnings))
    return replace(measured, streams=streams, track=track)


def check_file(path: Path) -> None:
    """Raises `VideoError` unless `path` is a regular file with something in it that we may read."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise VideoError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        name = str(path) if len(str(path)) < 200 else f"{str(path)[:200]}..."
        raise VideoError(f"{name!r}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if stat.S_ISDIR(status.st_mode):
        raise VideoError(f"{path}: is a directory; give one video file")
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(f"{path}: is not a regular file; give a video file on disk")
    if not os.access(path, os.R_OK):
        raise VideoError(f"{path}: cannot be read (permission denied)")
    if status.st_size == 0:
        raise VideoError(f"{path}: is empty (0 bytes); nothing was readable")


def _explain(path: Path, error: BaseException) -> str:
    with path.open("rb") as file:
        head = file.read(64)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "is an MP4 or MOV file without a readable header (moov): it was probably cut off; nothing was readable"
    # A list of addresses posing as a video ends in "not permitted": we let FFmpeg open nothing but the file itself.
    if isinstance(error, (av.error.InvalidDataError, PermissionError)):
        return "is not a video file that FFmpeg can read (unknown format or damaged header); nothing was readable"
    return f"cannot be read as a video ({getattr(error, 'strerror', None) or error}); nothing was readable"


def _choose_stream(path: Path, container: InputContainer) -> VideoStream:
    """The stream that the `ffmpeg` command takes: marked as default first, then the largest; never a cover picture."""
    real = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not real:
        if container.streams.video:
            raise VideoError(f"{path}: holds sound and a cover picture, no video stream")
        kinds = ", ".join(sorted({str(s.type) for s in container.streams})) or "nothing"
        raise VideoError(f"{path}: has no video stream (it holds {kinds})")
    known = [s for s in real if s.codec_context is not None]
    if not known:
        raise VideoError(f"{path}: its video codec is unknown to FFmpeg; convert it, for example to H.264")
    chosen = max(known, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height, -s.index))
    if chosen.codec_context.width * chosen.codec_context.height > MAX_PIXELS:
        size = f"{chosen.codec_context.width}x{chosen.codec_context.height}"
        raise VideoError(f"{path}: pictures of {size} are larger than the limit of {MAX_PIXELS >> 20} megapixels")
    return chosen


def _describe(stream: AnyStream) -> Stream:
    codec = stream.codec_context.name if getattr(stream, "codec_context", None) is not None else "unknown"
    return Stream(index=stream.index, kind=str(stream.type), codec=codec, language=stream.metadata.get("language"))


def _track(path: Path, container: InputContainer, stream: VideoStream, stall_s: float) -> Track:
    assert stream.time_base is not None
    begin = Fraction(container.start_time or 0, av.time_base)
    start = begin if stream.start_time is None else stream.start_time * stream.time_base
    # The container's start is rounded to microseconds; where it means this stream's, take that exactly.
    zero = start if abs(start - begin) <= 2 * TOLERANCE_S else max(Fraction(0), begin)
    return Track(path=path, stream=stream.index, time_base=stream.time_base, zero=zero, stall_s=stall_s)


def _headers(container: InputContainer, stream: VideoStream, track: Track) -> _Headers:
    end_s: float | None = None
    if stream.duration:
        end_s = track.seconds((stream.start_time or 0) + stream.duration)
    elif container.duration:
        start = Fraction(container.start_time or 0, av.time_base)
        end_s = float(start + Fraction(container.duration, av.time_base) - track.zero)
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return _Headers(
        end_s=end_s,
        end_covers_sound=not stream.duration,
        fps=float(rate) if rate and 0 < rate <= 1000 else 25.0,
        frames=stream.frames,
    )


def _first_frame(track: Track, reader: Reader) -> VideoFrame:
    first, *others = [*islice(reader.from_start(), _FIRST_LOOK)] or [None]
    if first is not None and reader.disordered > len(others) // 4:
        raise VideoError(
            f"{track.path}: its timestamps contradict the order of its pictures (B-frames in AVI?); "
            "convert it, for example with `ffmpeg -i IN OUT.mp4`"
        )
    if first is not None:
        return first
    if reader.timeless:
        raise VideoError(
            f"{track.path}: its frames have no timestamps (a raw stream); put it into a container, as `ffmpeg -c copy` does"
        )
    raise VideoError(f"{track.path}: not one frame could be decoded (damaged or zero duration); nothing was readable")


def _measure(track: Track, reader: Reader, headers: _Headers, pixels: int) -> Facts:
    """How long the video is, how much of it is there, and what is damaged."""
    near = None if headers.end_s is None else track.pts(headers.end_s - 1.0)
    ends = (reader.packet_ends(near) if near is not None else None) or reader.packet_ends(None)
    if ends is None:
        raise VideoError(f"{track.path}: its packets have no times; put it into a container, as `ffmpeg -c copy` does")
    whole_s = ends.video_s if ends.video_s > track.seconds(ends.last_pts) else ends.video_s + 1 / headers.fps
    readable_s, warnings = whole_s, list[str]()
    # A container's own duration also covers sound that outlasts the picture.
    reached_s = ends.any_s if headers.end_covers_sound else ends.video_s
    cut = headers.end_s is not None and headers.end_s - reached_s > max(0.5, 2 / headers.fps, 2 * ends.longest_s)
    short = (headers.frames or math.ceil(whole_s * headers.fps)) * pixels <= VERIFY_PIXELS
    if short or cut:
        decoded = reader.decoded_end(None if short else ends.last_pts)
        if reader.damaged:
            where = next((f", the first near {t:.1f} s" for t in reader.damaged if t is not None), "")
            count = len(reader.damaged)
            warnings.append(f"{track.path}: {count} packets cannot be decoded{where}; frames there are missing")
        if decoded is not None and decoded[1] < ends.last_pts:
            readable_s = decoded[0]
    if cut and headers.end_s is not None:
        whole_s = headers.end_s
    if readable_s < whole_s:
        warnings.append(f"{track.path}: only the first {readable_s:.2f} s of {whole_s:.2f} s can be read")
    return Facts(
        track=track,
        streams=(),
        duration_s=whole_s,
        readable_s=readable_s,
        fps=headers.fps,
        warnings=tuple(warnings),
    )

"""The default decoder: PyAV (FFmpeg), exact by presentation time, patient with damage.

How a frame is found: seek to the last keyframe at or before the target, decode forward, keep the last frame that starts
at or before it. A seek is only ever an estimate (an index is in decoding order, MPEG-TS has none), so what came out is
checked: frames that precede the keyframe in presentation order (their references are missing) are dropped, and when the
first frame left is after the target, the seek is repeated further back, down to the start of the file. Exactness never
rests on the container's index; only speed does.

AVI has no presentation times: pictures with B-frames get FFmpeg's guesses there, up to one frame late.

On the way to a target, pictures that no other picture refers to are not decoded (FFmpeg's `skip_frame`). That too rests on an
estimate, of how long a picture is shown, so what came out is checked again: where a picture passed over lies between the frame
that was found and its target, the stretch is decoded once more in full, and all of the file from there on.

Damage: a packet that does not decode is skipped and counted, and a `VideoWarning` says where; what decodes is given.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from itertools import chain, pairwise
from types import TracebackType
from typing import Any, NamedTuple

import av
import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import VideoError, VideoWarning
from .contract import DecodedFrame, Stall, Track
from .picture import Painter

# Reading on costs less than a seek while the next keyframe is closer than this.
_SEEK_GAP_S = 1.0
_MAX_DEMUX_ERRORS = 32
# MPEG program streams (VOB) time only some of their pictures: after a seek FFmpeg guesses the others, by half a frame wrong.
_NO_SEEKS = ("mpeg", "mpegvideo")
# Their decoders take `skip_frame` packet by packet (that of AV1 keeps what it was opened with).
_SKIPS = ("h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video")
# Threads cost a quarter more CPU; up to this size they cost time, too, and larger pictures come sooner with them.
_ALONE_PIXELS = 1280 * 720
# Each frame thread holds a frame in flight: more of them only fill memory and decode past the target.
_THREADS = min(8, os.cpu_count() or 1)
# Local files only: a playlist posing as a video must not make FFmpeg open addresses that it names.
_OPEN_OPTIONS = {"protocol_whitelist": "file"}


def open_container(path: str, stall_s: float) -> InputContainer:
    """An open container; a read that blocks longer than `stall_s` (a dead network disk) fails."""
    return av.open(path, options=_OPEN_OPTIONS, metadata_errors="replace", timeout=stall_s)


class Ends(NamedTuple):
    """Where a file's packets end: the picture's, those of any stream; the picture's last timestamp and longest packet."""

    video_s: float
    any_s: float
    last_pts: int
    longest_s: float


class Reader:
    """One open file and its position. Use as a context manager; one thread at a time."""

    def __init__(self, track: Track, *, threads: bool = True, quiet: bool = False) -> None:
        self.track = track
        self._quiet = quiet or track.damaged
        try:
            self._container = open_container(str(track.path), track.stall_s)
            stream = self._container.streams[track.stream]
        except (av.error.FFmpegError, OSError, IndexError) as error:
            raise VideoError(f"{track.path}: cannot be read any more ({error})") from None
        assert isinstance(stream, VideoStream)
        self._stream = stream
        # After a seek to a single picture, frame threads would decode others that nobody asked for.
        stream.thread_type = "AUTO" if threads else "SLICE"
        stream.codec_context.thread_count = _thread_count(track)
        self.damaged: list[float | None] = []
        """Where packets failed to decode, in seconds; None where the packet did not even say when."""
        self._moved = False
        self._target: int | None = None
        rate = stream.average_rate if stream.codec_context.codec.name in _SKIPS else None
        self._margin = round(2 / rate / track.time_base) if rate else None
        """Pictures that start so long before the target are hardly the one shown at it. None: everything is decoded."""
        self._latest_passed = -math.inf
        self.timeless = False
        """True once a frame came without a timestamp."""
        self.disordered = 0
        """How many frames were dropped because their timestamps go backwards."""

    @property
    def pixel_shape(self) -> Fraction | None:
        """Width to height of one stored pixel; None where the file does not say."""
        shape = self._stream.sample_aspect_ratio or self._stream.codec_context.sample_aspect_ratio
        return shape if shape else None

    def packet_ends(self, pts: int | None) -> Ends | None:
        """Where the packets end, read without decoding from the keyframe before `pts` (None: from the start).

        None when the picture's stream has no packet there.
        """
        track, any_s, end, last, longest = self.track, 0.0, 0, None, 0
        if not self._seek(pts):
            self._seek(None)
        for packet in self._packets(every_stream=True):
            when = None if packet is None or packet.is_corrupt else _when(packet)
            if packet is None or when is None:
                continue
            after = when + (packet.duration or 0)
            any_s = max(any_s, float(after * packet.time_base - track.zero))
            if packet.stream_index == track.stream:
                longest = max(longest, packet.duration or 0)
                if last is None or when > last:
                    last, end = when, after
        self.damaged.clear()
        if last is None:
            return None
        return Ends(video_s=track.seconds(end), any_s=any_s, last_pts=last, longest_s=float(longest * track.time_base))

    @property
    def container_name(self) -> str:
        return self._container.format.name

    def timeline(self) -> tuple[list[int], list[int], bool]:
        """Timestamps of all packets in order of presentation, those of keyframes, and whether every keyframe is known to be
        a clean start: H.264 IDR, followed in the file by no picture shown before it. Reads the file, decodes nothing."""
        self._seek(None)
        stamps, keys, clean = list[int](), list[int](), self._stream.codec_context.codec.name == "h264"
        for packet in self._packets():
            if packet is None or packet.pts is None:
                continue
            stamps.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
                clean = clean and _has_idr(bytes(packet), self._stream.codec_context.extradata or b"")
            elif keys and packet.pts < keys[-1]:
                clean = False
        return sorted(stamps), keys, clean

    def decoded_end(self, pts: int | None) -> tuple[float, int] | None:
        """Where the last frame that decodes ends (seconds) and its timestamp; None when nothing does.

        Decodes everything from the keyframe before `pts`, or from the start.
        """
        last: VideoFrame | None = None
        gap = 0
        for frame in self.from_start() if pts is None else self.walk(pts):
            gap = _pts(frame) - _pts(last) if last is not None else 0
            last = frame
        if last is None:
            return None
        return self.track.seconds(_pts(last) + (last.duration or gap)), _pts(last)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._container.close()
        if self.damaged and kind is None and not self._quiet:
            where = next((f" near {t:.1f} s" for t in self.damaged if t is not None), "")
            warnings.warn(
                f"{self.track.path}: {len(self.damaged)} packets are damaged{where}; frames there are missing",
                VideoWarning,
                stacklevel=2,
            )

    def from_start(self) -> Iterator[VideoFrame]:
        """All frames in presentation order."""
        self._seek(None)
        return self._decode(after_seek=False)

    def walk(self, pts: int) -> Iterator[VideoFrame]:
        """Frames in presentation order, the first of them at or before `pts` wherever the file has such a frame."""
        if self.container_name in _NO_SEEKS:
            return self.from_start()
        step = max(1, round(1 / self.track.time_base))
        start = self._stream.start_time or 0
        back = 0
        while pts - back > start and self._seek(pts - back):
            frames = self._decode(after_seek=True)
            first = next(frames, None)
            if first is not None and _pts(first) <= pts:
                return chain((first,), frames)
            back = 2 * back or step
        return self.from_start()

    def aim(self, target: int) -> None:
        """Only the frame shown at `target` is wanted now: what lies well before it may be passed over."""
        self._target = target

    def passed_over(self, frame: VideoFrame | None) -> bool:
        """True when a picture later than `frame` was perhaps passed over; from then on none is."""
        missed = frame is not None and _pts(frame) < self._latest_passed
        if missed:
            self._margin, self._latest_passed = None, -math.inf
        return missed

    def better_to_seek(self, position: int, target: int) -> bool:
        """True when a keyframe lies far enough between the frame at hand and the target."""
        gap = round(_SEEK_GAP_S / self.track.time_base)
        if target - position <= gap or self.container_name in _NO_SEEKS:
            return False
        entries = self._stream.index_entries
        found = entries.search_timestamp(target) if len(entries) > 1 else -1
        # No index (MPEG-TS, Matroska before its first seek): keyframes are rarely further apart than a few seconds.
        return entries[found].timestamp - position > gap if found >= 0 else target - position > 4 * gap

    def _seek(self, pts: int | None) -> bool:
        """To the keyframe before `pts`, or to the start of the file; False where the container cannot."""
        if pts is None:
            # A seek to the start can miss it (negative times, a clock that wraps round): only a fresh file is sure.
            if self._moved:
                self._reopen()
            self._moved = True
            return True
        self._moved = True
        try:
            self._container.seek(pts, backward=True, stream=self._stream)
        except (av.error.FFmpegError, OSError):
            return False
        return True

    def _reopen(self) -> None:
        threads = self._stream.thread_type
        self._container.close()
        self._container = open_container(str(self.track.path), self.track.stall_s)
        stream = self._container.streams[self.track.stream]
        assert isinstance(stream, VideoStream)
        self._stream = stream
        stream.thread_type, stream.codec_context.thread_count = threads, _thread_count(self.track)

    def _decode(self, *, after_seek: bool) -> Iterator[VideoFrame]:
        stall, last, earliest = Stall(self.track), None, None
        for packet in self._packets():
            stall.check()
            if packet is not None and after_seek and earliest is None:
                if not packet.is_keyframe or _when(packet) is None:
                    continue
                earliest = _when(packet)
            for frame in self._decode_packet(packet):
                stall.progress()
                pts = frame.pts
                self.timeless |= pts is None
                if pts is None or (earliest is not None and pts < earliest):
                    continue
                if last is not None and pts <= last:
                    self.disordered += 1
                    continue
                last = pts
                yield frame
                stall.progress()

    def _economise(self, packet: av.Packet[VideoStream] | None) -> None:
        """Have the decoder leave out what no picture refers to, while the target is far."""
        far = False
        if packet is not None and packet.pts is not None and self._target is not None and self._margin is not None:
            far = packet.pts < self._target - self._margin
            self._latest_passed = max(self._latest_passed, packet.pts) if far else self._latest_passed
        wanted = "NONREF" if far else "DEFAULT"
        if self._stream.codec_context.skip_frame != wanted:
            self._stream.codec_context.skip_frame = wanted

    def _decode_packet(self, packet: av.Packet[VideoStream] | None) -> list[VideoFrame]:
        self._economise(packet)
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.error.EOFError:
            return []
        except (av.error.FFmpegError, OSError, MemoryError):
            at = packet.pts if packet is not None else None
            self.damaged.append(None if at is None else self.track.seconds(at))
            return []
        return frames

    def _packets(self, *, every_stream: bool = False) -> Iterator[av.Packet[Any] | None]:
        """The stream's packets, ended by None (drain the decoder), past errors of the container."""
        for _ in range(_MAX_DEMUX_ERRORS):
            try:
                for packet in self._container.demux(*(() if every_stream else (self._stream,))):
                    if packet.size:
                        yield packet
                break
            except av.error.EOFError:
                break
            except (av.error.FFmpegError, OSError):
                self.damaged.append(None)
        yield None


def _thread_count(track: Track) -> int:
    # Where a packet is damaged, frame threads lose sound frames before it.
    return 1 if track.damaged or track.width * track.height <= _ALONE_PIXELS else _THREADS


def _has_idr(packet: bytes, header: bytes) -> bool:
    """True when an H.264 packet holds an IDR slice (NAL type 5); `header` is the stream's avcC record, or Annex B."""
    if len(header) < 5 or header[0] != 1:
        return any(nal[:1] and nal[0] & 31 == 5 for nal in packet.split(b"\0\0\1"))
    prefix, at = (header[4] & 3) + 1, 0
    while at + prefix < len(packet):
        if packet[at + prefix] & 31 == 5:
            return True
        at += prefix + int.from_bytes(packet[at : at + prefix], "big")
    return False


def _when(packet: av.Packet[Any]) -> int | None:
    """A packet's timestamp; containers without presentation times (AVI) leave the decoding time, never a later one."""
    return packet.dts if packet.pts is None else packet.pts


def _pts(frame: VideoFrame) -> int:
    assert frame.pts is not None
    return frame.pts


def _painted(track: Track, painter: Painter, frame: VideoFrame) -> DecodedFrame:
    at_s = track.seconds(_pts(frame))
    try:
        return DecodedFrame(timestamp_s=at_s, pixels=painter.paint(frame))
    except (av.error.FFmpegError, OSError, MemoryError) as error:
        kind = f"{frame.width}x{frame.height} {frame.format.name}"
        raise VideoError(f"{track.path}: the frame at {at_s:.3f} s ({kind}) cannot be made RGB ({error})") from None


class _Walk:
    """A way through a file from target to target, none before the last."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._frames: Iterator[VideoFrame] = iter(())
        self._current: VideoFrame | None = None
        self._ahead: VideoFrame | None = None

    def to(self, target: int) -> VideoFrame | None:
        """The frame shown at timestamp `target`; None when nothing decodes there."""
        self._reader.aim(target)
        if self._current is None or (self._ahead and self._reader.better_to_seek(_pts(self._ahead), target)):
            self._seek(target)
        self._advance(target)
        if self._reader.passed_over(self._current):
            self._seek(target)
            self._advance(target)
        return self._current

    def _seek(self, target: int) -> None:
        self._frames = self._reader.walk(target)
        self._current = self._ahead = next(self._frames, None)

    def _advance(self, target: int) -> None:
        while self._ahead is not None and _pts(self._ahead) <= target:
            self._current, self._ahead = self._ahead, next(self._frames, None)


def _found(reader: Reader, times_s: Iterable[float]) -> Iterator[VideoFrame]:
    walk, track = _Walk(reader), reader.track
    for t_s in times_s:
        frame = walk.to(track.pts(t_s))
        if frame is None:
            raise VideoError(f"{track.path}: no frame could be decoded at {t_s:.3f} s")
        yield frame


def _painted_beside(track: Track, painter: Painter, frames: Iterator[VideoFrame]) -> Iterator[DecodedFrame]:
    """Each frame painted in a thread while the next is looked for, one that comes again only once."""
    last: VideoFrame | None = None
    painted: Future[DecodedFrame] | None = None
    with ThreadPoolExecutor(1, "paint") as pool:
        try:
            for frame in frames:
                ready = painted
                if painted is None or frame is not last:
                    last, painted = frame, pool.submit(_painted, track, painter, frame)
                if ready is not None:
                    yield ready.result()
        except VideoError:
            if painted is not None:  # what was found before is still given
                yield painted.result()
            raise
        if painted is not None:
            yield painted.result()


class PyavDecoder:
    """See the module and `Decoder`."""

    name = "pyav"

    def shown(self, track: Track, times_s: Iterable[float], size: tuple[int, int] | None) -> Iterator[DecodedFrame]:
        with Reader(track) as reader:
            yield from _painted_beside(track, Painter(size or (track.width, track.height)), _found(reader, times_s))

    def every(self, track: Track, start_s: float, end_s: float, size: tuple[int, int] | None) -> Iterator[DecodedFrame]:
        painter = Painter(size or (track.width, track.height))
        start, end = track.pts(start_s), track.pts(end_s)
        with Reader(track) as reader:
            for frame, following in pairwise(chain(reader.walk(start), (None,))):
                assert frame is not None
                pts = _pts(frame)
                if following is not None and _pts(following) <= start:
                    continue
                if pts > start and track.seconds(pts) >= end_s:
                    return
                yield _painted(track, painter, frame)
                if pts > end:
                    return

    def keyframes(self, track: Track, times_s: Iterable[float], size: tuple[int, int] | None) -> Iterator[DecodedFrame]:
        painter = Painter(size or (track.width, track.height))
        with Reader(track, threads=False) as reader:
            made: DecodedFrame | None = None
            for t_s in times_s:
                frame = next(reader.walk(track.pts(t_s)), None)
                if frame is None:
                    raise VideoError(f"{track.path}: no keyframe could be decoded at {t_s:.3f} s")
                at_s = track.seconds(_pts(frame))
                if made is None or made.timestamp_s != at_s:
                    made = _painted(track, painter, frame)
                yield made

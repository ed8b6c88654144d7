"""Small real video files whose every frame shows its own number, written through PyAV, and the real files."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

BITS, CELL = 8, 16
WIDTH, HEIGHT = BITS * CELL, 96


def card(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A picture that says its number: a row of black and white cells on top, a corner mark at the bottom left."""
    pixels = np.full((height, width, 3), 96, np.uint8)
    for bit in range(BITS):
        pixels[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = 255 if number >> bit & 1 else 0
    pixels[height * 3 // 4 :, : width // 4] = (255, 0, 0)
    return pixels


def read_card(pixels: np.ndarray) -> int:
    """The number of an upright card of any size."""
    height, width, _ = pixels.shape
    row = pixels[height // 4, :, :].mean(axis=1)
    return sum(int(row[int((bit + 0.5) * width / BITS)] > 128) << bit for bit in range(BITS))


@dataclass(frozen=True)
class Made:
    """A file and the truth about it: `times_s[i]` is when card i appears, `end_s` when the last one ends."""

    path: Path
    times_s: list[float]
    end_s: float
    size: tuple[int, int] = (WIDTH, HEIGHT)
    decord_reads: bool = True

    def shown(self, t_s: float) -> int:
        """The number of the card on screen at `t_s`."""
        return max((i for i, t in enumerate(self.times_s) if t <= t_s + 1e-6), default=0)


@contextmanager
def scheduled_as_before() -> Iterator[None]:
    """Run as root, SVT-AV1 makes the thread that encodes a real-time one of the highest priority, and leaves it so: it and all
    threads that it starts from then on would take the cores from everything else, and from each other for ever."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def write(
    path: Path,
    ticks: list[int],
    *,
    rate: int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    sar: Fraction | None = None,
    audio_s: float = 0.0,
    form: str | None = None,
) -> None:
    """Cards at the given ticks of 1/1000 s."""
    default = {"crf": "20", "preset": "ultrafast", "bf": "3", "g": "20", "x264-params": "scenecut=0"}
    with scheduled_as_before(), av.open(str(path), "w", format=form, options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=(default if codec == "libx264" else {}) | (options or {}))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        stream.codec_context.time_base = Fraction(1, 25) if codec == "mpeg2video" else Fraction(1, 1000)
        if sar is not None:
            stream.codec_context.sample_aspect_ratio = sar
        sound = out.add_stream("aac", rate=8000) if audio_s else None
        if sound is not None:
            for start in range(0, int(audio_s * 8000), 1024):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                samples.sample_rate, samples.pts, samples.time_base = 8000, start, Fraction(1, 8000)
                out.mux(sound.encode(samples))
            out.mux(sound.encode(None))
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(card(number), "rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def turn(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write an MP4's display matrix (a, b, c, d in whole turns) over the one in its track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    a, b, c, d = (v << 16 for v in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


CFR = [40 * i for i in range(90)]


def _cfr(path: Path) -> Made:
    write(path, CFR)
    return Made(path, [t / 1000 for t in CFR], 3.6)


def _open_gop(path: Path) -> Made:
    write(path, CFR, options={"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0:keyint=20"})
    return Made(path, [t / 1000 for t in CFR], 3.6)


def _intra_refresh(path: Path) -> Made:
    write(path, CFR, options={"x264-params": "intra-refresh=1:keyint=20", "bf": "0"})
    return Made(path, [t / 1000 for t in CFR], 3.6)


def _vfr(path: Path) -> Made:
    rng, ticks = random.Random(7), [0]
    for _ in range(79):
        ticks.append(ticks[-1] + rng.choice((17, 33, 40, 200, 900)))
    write(path, ticks)
    return Made(path, [t / 1000 for t in ticks], ticks[-1] / 1000 + 0.04)


def _pauses(path: Path) -> Made:
    """A steady rate with pictures now and then that stay for seconds, many of them such that no other refers to them."""
    ticks = [0]
    for i in range(89):
        ticks.append(ticks[-1] + (3000 if i % 11 == 10 else 40))
    write(path, ticks, options={"x264-params": "bframes=3:b-pyramid=none:b-adapt=0:scenecut=0:keyint=250"})
    return Made(path, [t / 1000 for t in ticks], ticks[-1] / 1000 + 0.04)


def _late_start(path: Path) -> Made:
    """The only stream starts at PTS 0.5 s: that is the start of the presentation, 0 s."""
    write(path, [500 + t for t in CFR])
    return Made(path, [t / 1000 for t in CFR], 3.6)


def _late_picture(path: Path) -> Made:
    """Sound from 0, picture from 0.5 s: the first frame appears at 0.5 s."""
    write(path, [500 + t for t in CFR], audio_s=3.0)
    return Made(path, [0.5 + t / 1000 for t in CFR], 4.1)


def _long_sound(path: Path) -> Made:
    """The sound outlasts the picture, in a container that tells only one duration."""
    write(path, CFR, audio_s=8.0)
    return Made(path, [t / 1000 for t in CFR], 3.6)


def _turned(matrix: tuple[int, int, int, int]) -> Callable[[Path], Made]:
    def make(path: Path) -> Made:
        a, b, c, d = matrix
        upright = [card(i, *((HEIGHT, WIDTH) if b else (WIDTH, HEIGHT))) for i in range(30)]
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=25, options={"crf": "20", "preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for pixels in upright:
                stored = pixels
                # The inverse of showing: mirror what will be mirrored, then transpose what will be transposed.
                if (d or b) < 0:
                    stored = stored[::-1]
                if (a or c) < 0:
                    stored = stored[:, ::-1]
                if b:
                    stored = stored.transpose(1, 0, 2)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), "rgb24").reformat(format="yuv420p")
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        turn(path, matrix)
        size = (HEIGHT, WIDTH) if b else (WIDTH, HEIGHT)
        return Made(path, [0.04 * i for i in range(30)], 1.2, size)

    return make


def _wide_pixels(path: Path) -> Made:
    write(path, CFR, sar=Fraction(2, 1))
    return Made(path, [t / 1000 for t in CFR], 3.6, (2 * WIDTH, HEIGHT))


def _two_streams(path: Path) -> Made:
    """Both are marked as default; the first is small and shows only card 255, the larger second one is what players take."""
    with av.open(str(path), "w") as out:
        small = out.add_stream("libx264", rate=25)
        large = out.add_stream("libx264", rate=25)
        small.width, small.height, small.pix_fmt = WIDTH // 2, HEIGHT // 2, "yuv420p"
        large.width, large.height, large.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        small.disposition = large.disposition = Disposition.default
        for i in range(30):
            for stream, picture in ((small, card(255, WIDTH // 2, HEIGHT // 2)), (large, card(i))):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")))
        for stream in (small, large):
            out.mux(stream.encode(None))
    return Made(path, [0.04 * i for i in range(30)], 1.2)


def _one_frame(path: Path) -> Made:
    write(path, [0])
    return Made(path, [0.0], 0.04)


def _png(path: Path) -> Made:
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as out:
        stream = out.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(card(0), "rgb24")))
        out.mux(stream.encode(None))
    return Made(path, [0.0], 0.04, decord_reads=False)


def _plain(decord_reads: bool = True, **how: object) -> Callable[[Path], Made]:
    def make(path: Path) -> Made:
        write(path, CFR, **how)  # type: ignore[arg-type]
        return Made(path, [t / 1000 for t in CFR], 3.6, decord_reads=decord_reads)

    return make


MAKERS: dict[str, Callable[[Path], Made]] = {
    "cfr.mp4": _cfr,
    "open_gop.mp4": _open_gop,
    "intra_refresh.mp4": _intra_refresh,
    "vfr.mp4": _vfr,
    "pauses.mp4": _pauses,
    "late_start.mp4": _late_start,
    "late_picture.mp4": _late_picture,
    "long_sound.mkv": _long_sound,
    "turned_90.mp4": _turned((0, 1, -1, 0)),
    "turned_180.mp4": _turned((-1, 0, 0, -1)),
    "turned_270.mp4": _turned((0, -1, 1, 0)),
    "wide_pixels.mp4": _wide_pixels,
    "two_streams.mp4": _two_streams,
    "one_frame.mp4": _one_frame,
    "one_frame.png": _png,
    "hevc.mp4": _plain(codec="libx265", options={"preset": "ultrafast", "x265-params": "log-level=none:keyint=20"}),
    "ten_bit.mp4": _plain(pix_fmt="yuv420p10le"),
    "full_range.mp4": _plain(pix_fmt="yuvj420p"),
    "av1.mkv": _plain(decord_reads=False, codec="libsvtav1", options={"preset": "12", "svtav1-params": "keyint=20"}),
    "vp9.webm": _plain(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "g": "20"}),
    "clock.ts": _plain(decord_reads=False, form="mpegts"),
    "live.mkv": _plain(decord_reads=False, container={"live": "1"}),
    "program.mpg": _plain(False, form="vob", codec="mpeg2video", options={"g": "20", "bf": "2", "b": "2000000"}),
    "mpeg4.avi": _plain(codec="mpeg4", options={"g": "20"}),
    "fragments.mp4": _plain(container={"movflags": "frag_keyframe+empty_moov"}),
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """`made(name)` gives one of `MAKERS`' files, written once in a session."""
    folder, done = tmp_path_factory.mktemp("videos"), dict[str, Made]()

    def get(name: str) -> Made:
        if name not in done:
            done[name] = MAKERS[name](folder / name)
        return done[name]

    return get


REAL = Path(os.environ.get("PLAYHEAD_REAL") or Path(__file__).resolve().parents[3] / "shared" / "real")


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real files; tests that need it are skipped where it is absent."""
    if not (REAL / "video").is_dir():
        pytest.skip(f"no real files at {REAL} (set PLAYHEAD_REAL)")
    return REAL

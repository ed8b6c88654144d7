"""How fast frames come: playhead's decoder as it is, in one thread and in several, decord, and `ffmpeg -f null` (decode and
throw away) side by side.

    python -m playhead.benchmarks.decode [--file FILM] [--minutes 20] [--height 360] [--repeats 3] [--json OUT]

Three tasks on one file, at 398x224: 64 uniform frames, one frame a second, and 10 s at 4 fps. The contestants take turns in
one process (ffmpeg in its own), `repeats` rounds; the smallest figure of each counts. CPU seconds include all threads.

`ffmpeg -f null` is what decoding alone costs, without conversion, scaling or arrays. It has no way to jump about, so for
64 uniform frames it decodes everything. It shows seconds for reading on, and for the window it seeks first. Where `ffmpeg`
is not on PATH, PyAV decoding in sequence and throwing away stands in for it, and the table says so.
Without `--file` a film is made (16 to 9, 30 fps, H.264, scene cuts) and kept in the cache folder.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import av
import numpy as np

from ..core.decoders import pyav
from ..core.home import cache_dir
from ..core.sampling import fps_times, uniform_times
from ..core.video import Video

SIZE = (398, 224)
WINDOW_S, WINDOW_FPS = 10.0, 4.0


@dataclass(frozen=True)
class Job:
    """One task: which times, and the stretch that a plain decoder has to pass through to see them."""

    name: str
    times_s: list[float]
    start_s: float
    end_s: float


REEL_S = 60


def make_film(path: Path, minutes: float, height: int = 360) -> None:
    """A synthetic film: moving bars over a drifting background, another scene every 5 s; a minute of it, again and again."""
    width = height * 16 // 9
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    with av.open(str(beside), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "26", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # Copied packets, not frames encoded again: each reel starts with a keyframe, so a decoder cannot tell.
        sized = (scene.reformat(width, height, "yuv420p") for scene in scenes(REEL_S * 30))
        reel = [p for frame in chain(sized, [None]) for p in stream.encode(frame)]
        times = [(p.pts or 0, p.dts or 0) for p in reel]
        for round_ in range(max(1, round(minutes * 60 / REEL_S))):
            for packet, (pts, dts) in zip(reel, times, strict=True):
                shift = round(round_ * REEL_S / stream.codec_context.time_base)
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.is_keyframe = (
                    stream,
                    stream.codec_context.time_base,
                    packet.is_keyframe,
                )
                copy.pts, copy.dts, copy.duration = pts + shift, dts + shift, packet.duration
                out.mux(copy)
    beside.replace(path)


def scenes(frames: int) -> Iterator[av.VideoFrame]:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:360, 0:640]
    colour, width, texture = np.zeros(3, np.int64), 1, np.zeros((360, 640, 3), np.uint8)
    for i in range(frames):
        if i % 150 == 0:
            colour, step, width = rng.integers(40, 216, 3), rng.integers(1, 6, 2), int(rng.integers(20, 80))
            backdrop = ((columns * step[0] // 4 + rows * step[1] // 4) % 64)[..., None] + colour
            texture = np.clip(backdrop + rng.integers(-6, 7, (360, 640, 1)), 0, 255).astype(np.uint8)
        picture = np.roll(texture, i % 150 // 2, axis=1)
        at = i * 5 % (640 - width)
        picture[120:240, at : at + width] = 255 - colour
        frame = av.VideoFrame.from_ndarray(picture, "rgb24")
        frame.pts, frame.time_base = i, Fraction(1, 30)
        yield frame


def ours(video: Video, job: Job) -> int:
    return len(video.frames_at(job.times_s, SIZE))


def in_threads(several: bool) -> Callable[[Video, Job], int]:
    """Ours, in one thread or in several, whatever the size of the picture."""

    def run(video: Video, job: Job) -> int:
        with patch.object(pyav, "_ALONE_PIXELS", 0 if several else 1 << 40):
            return ours(video, job)

    return run


def with_decord(video: Video, job: Job) -> int:
    """decord as its users call it, but by timestamps."""
    import decord

    reader = decord.VideoReader(str(video.path), width=SIZE[0], height=SIZE[1])
    starts = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0]
    indices = np.maximum(np.searchsorted(starts, job.times_s, side="right") - 1, 0)
    return sum(len(reader.get_batch(part).asnumpy()) for part in np.array_split(indices, max(1, len(indices) // 64)))


def with_ffmpeg(video: Video, job: Job) -> int:
    stretch = ["-ss", str(job.start_s), "-t", str(job.end_s - job.start_s)] if job.end_s < video.duration_s else []
    command = ["ffmpeg", "-v", "error", "-nostdin", *stretch, "-i", str(video.path), "-an", "-f", "null", "-"]
    subprocess.run(command, check=True)
    return 0


def in_sequence(video: Video, job: Job) -> int:
    """The stand-in for `ffmpeg -f null`: PyAV, every frame of the stretch, nothing done with it."""
    count = 0
    with av.open(str(video.path)) as container:
        stream = next(s for s in container.streams.video if s.index == video.track.stream)
        stream.thread_type = "AUTO"
        container.seek(video.track.pts(job.start_s), stream=stream)
        for frame in container.decode(stream):
            if video.track.seconds(frame.pts or 0) >= job.end_s:
                break
            count += 1
    return count


def cpu_s() -> float:
    """CPU seconds of this process with all its threads, and of its ended children."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in usages)


def contestants() -> dict[str, Callable[[Video, Job], int]]:
    found: dict[str, Callable[[Video, Job], int]] = {
        "playhead": ours,
        "one thread": in_threads(False),
        "several threads": in_threads(True),
    }
    try:
        import decord  # noqa: F401

        found["decord"] = with_decord
    except ImportError:
        print("decord is not installed: left out")
    if shutil.which("ffmpeg"):
        found["ffmpeg -f null"] = with_ffmpeg
    else:
        print("ffmpeg is not on PATH: PyAV decoding in sequence stands in for `ffmpeg -f null`")
        found["in sequence"] = in_sequence
    return found


def measure(video: Video, jobs: list[Job], repeats: int) -> dict[str, dict[str, tuple[float, float]]]:
    """job -> contestant -> (least CPU seconds, least wall seconds)."""
    field = contestants()
    best = {job.name: {name: (np.inf, np.inf) for name in field} for job in jobs}
    for job in jobs:
        for _ in range(repeats):
            for name, run in field.items():
                cpu, wall = cpu_s(), time.perf_counter()
                run(video, job)
                spent = cpu_s() - cpu, time.perf_counter() - wall
                best[job.name][name] = tuple(map(min, best[job.name][name], spent))  # type: ignore[assignment]
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    made = cache_dir() / "benchmarks" / f"decode-{options.minutes:g}min-{options.height}.mp4"
    path = options.file or made
    if not path.exists():
        print(f"making {path} ...")
        make_film(path, options.minutes, options.height)
    video = Video.open(path)
    length, middle = video.duration_s, video.duration_s * 0.503
    window_end = min(middle + WINDOW_S, length)
    jobs = [
        Job("64 uniform frames", uniform_times(length, 64), 0.0, length),
        Job("1 fps", fps_times(0.0, length, 1.0), 0.0, length),
        Job(f"{WINDOW_S:g} s at {WINDOW_FPS:g} fps", fps_times(middle, window_end, WINDOW_FPS), middle, window_end),
    ]
    print(
        f"{path.name}: {length:.0f} s, {video.width}x{video.height}, {video.fps:.2f} fps; least of {options.repeats} rounds"
    )
    best = measure(video, jobs, options.repeats)
    for job, row in best.items():
        print(f"\n{job:22}{'CPU s':>9}{'wall s':>9}{'ours/its CPU':>15}{'ours/its wall':>15}")
        mine = row["playhead"]
        for name, (cpu, wall) in row.items():
            print(f"  {name:20}{cpu:9.2f}{wall:9.2f}{mine[0] / cpu:15.2f}{mine[1] / wall:15.2f}")
    if options.json:
        options.json.write_text(json.dumps({"file": str(path), "least": best}, indent=1))


if __name__ == "__main__":
    main()

"""What every decoder keeps, on every file: the frame shown at t, its true time, upright pixels; and both see the same."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playhead.core.decoders import DECODERS, pyav
from playhead.core.decoders.pyav import Reader
from playhead.core.errors import VideoError
from playhead.core.video import Video

from .conftest import MAKERS, REAL, Made, read_card

REAL_FILES = sorted(p.name for p in (REAL / "video").glob("*.m??")) if REAL.is_dir() else []


def opened(made: Made, decoder: str) -> Video:
    if decoder == "decord":
        pytest.importorskip("decord")
        if not made.decord_reads:
            pytest.skip(f"decord does not read {made.path.name}")
    return Video.open(made.path, decoder=decoder)


@pytest.fixture(params=[*DECODERS, "pyav in threads"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name, *threads = request.param.split(" in ")
    if threads:  # as it decodes large pictures
        monkeypatch.setattr(pyav, "_ALONE_PIXELS", 0)
    return name


@pytest.fixture(params=sorted(MAKERS))
def file(request: pytest.FixtureRequest, made: Callable[[str], Made]) -> Made:
    return made(request.param)


def test_the_frame_shown_at_a_time(file: Made, decoder: str) -> None:
    video = opened(file, decoder)
    starts = file.times_s
    ends = [*starts[1:], file.end_s]
    asked = [t for a, b in zip(starts, ends, strict=True) for t in (a, (a + b) / 2, b - 0.001)]
    asked = asked[::-1] if len(asked) < 200 else asked[::7][::-1]  # any order may be asked
    frames = video.frames_at(asked)
    assert [read_card(f.pixels) for f in frames] == [file.shown(t) for t in asked]
    assert [f.timestamp_s for f in frames] == pytest.approx([starts[file.shown(t)] for t in asked], abs=6e-4)
    again = video.frames_at([f.timestamp_s for f in frames])
    assert [f.timestamp_s for f in again] == [f.timestamp_s for f in frames], "a frame's own time finds that frame"


def test_making_the_files_leaves_this_thread_as_it_was(tmp_path: Path) -> None:
    before = os.sched_getscheduler(0)
    MAKERS["av1.mkv"](tmp_path / "av1.mkv")
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_decord_says_what_it_cannot_read(name: str, made: Callable[[str], Made]) -> None:
    pytest.importorskip("decord")
    file = made(name)
    if file.decord_reads:
        pytest.skip("it reads this one")
    with pytest.raises(VideoError, match="use decoder='pyav'"):
        Video.open(file.path, decoder="decord").frames_at([0.0])


def test_far_jumps_find_the_same_frames(file: Made, decoder: str) -> None:
    video = opened(file, decoder)
    for t in (video.duration_s * x for x in (0.93, 0.11, 0.52, 0.51, 0.0, 0.999)):
        (frame,) = video.frames_at([t])
        assert read_card(frame.pixels) == file.shown(t), t


def test_pictures_are_passed_over_only_where_nobody_sees_them(
    made: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding saves what no picture refers to; a picture that stays for seconds and was passed over is gone back for."""
    back: list[bool] = []
    passed_over = Reader.passed_over
    monkeypatch.setattr(Reader, "passed_over", lambda self, frame: back.append(passed_over(self, frame)) or back[-1])
    for name, missed in (("cfr.mp4", False), ("pauses.mp4", True)):
        file = made(name)
        times = [file.end_s * i / 20 for i in range(1, 20)]
        back.clear()
        frames = Video.open(file.path).frames_at(times)
        assert [read_card(f.pixels) for f in frames] == [file.shown(t) for t in times]
        assert any(back) == missed, name
    assert sum(back) == 1, "and from then on all is decoded"


def test_times_outside_are_the_nearest_frame(file: Made, decoder: str) -> None:
    first, last = opened(file, decoder).frames_at([-5.0, 1e7])
    assert (read_card(first.pixels), read_card(last.pixels)) == (0, len(file.times_s) - 1)


def test_every_frame_once(file: Made, decoder: str) -> None:
    video = opened(file, decoder)
    frames = list(video.read(0.0, video.duration_s, None))
    assert [read_card(f.pixels) for f in frames] == list(range(len(file.times_s)))
    assert [f.timestamp_s for f in frames] == pytest.approx(file.times_s, abs=6e-4)


def test_a_stretch_begins_with_the_frame_on_screen(file: Made, decoder: str) -> None:
    video, times = opened(file, decoder), file.times_s
    if len(times) < 30:
        pytest.skip("one frame has no stretches")
    start_s, end_s = (times[10] + times[11]) / 2, times[20]
    assert [read_card(f.pixels) for f in video.read(start_s, end_s, None)] == list(range(10, 20))
    rate = [read_card(f.pixels) for f in video.read(start_s, end_s, 10.0)]
    assert rate == [file.shown(start_s + i / 10) for i in range(len(rate))]
    assert len(rate) == pytest.approx((end_s - start_s) * 10, abs=1)
    assert list(video.read(end_s, start_s, None)) == []


def test_facts(file: Made, decoder: str) -> None:
    video = opened(file, decoder)
    assert (video.width, video.height) == file.size
    assert video.duration_s == pytest.approx(file.end_s, abs=0.05)
    assert video.readable_s == video.duration_s and not video.warnings
    (frame,) = video.frames_at([0.0])
    assert frame.pixels.shape == (*file.size[::-1], 3) and frame.pixels.dtype == np.uint8
    assert frame.pixels.flags.c_contiguous
    height, width, _ = frame.pixels.shape
    mark = frame.pixels[height * 7 // 8, width // 8].astype(int)
    assert mark[0] > 180 and mark[1] < 90 and mark[2] < 90, "the red mark stands at the bottom left of an upright frame"


def test_a_size_is_kept(file: Made, decoder: str) -> None:
    times = [0.0, file.end_s / 2]
    frames = opened(file, decoder).frames_at(times, size=(80, 60))
    assert all(f.pixels.shape == (60, 80, 3) for f in frames)
    assert [read_card(f.pixels) for f in frames] == [file.shown(t) for t in times]


def test_keyframes_are_early_and_say_so(file: Made, decoder: str) -> None:
    video = opened(file, decoder)
    asked = [file.end_s * i / 7 for i in range(7)]
    for t, frame in zip(asked, video.keyframes_at(asked), strict=True):
        assert frame.timestamp_s <= max(t, file.times_s[0]) + 1e-3
        assert read_card(frame.pixels) == file.shown(frame.timestamp_s + 5e-4)


@pytest.mark.parametrize("name", REAL_FILES or ["(no real files)"])
def test_both_see_the_same_in_real_files(name: str, real: Path) -> None:
    pytest.importorskip("decord")
    try:
        ours = Video.open(real / "video" / name)
    except VideoError as error:
        assert "\n" not in str(error) and "no video stream" in str(error)
        return
    theirs = Video.open(real / "video" / name, decoder="decord")
    times = [ours.duration_s * i / 29 for i in range(30)]
    mine = ours.frames_at(times)
    try:
        other = theirs.frames_at(times)
    except VideoError as error:
        pytest.skip(f"decord cannot read it: {error}")
    assert [f.timestamp_s for f in mine] == [f.timestamp_s for f in other]
    ten_bit = "10bits" in name  # scaled down to 8 bits by two versions of swscale, which place chroma differently
    for a, b in zip(mine, other, strict=True):
        assert np.abs(a.pixels.astype(int) - b.pixels).mean() <= (4.0 if ten_bit else 0.0), a.timestamp_s


@pytest.mark.parametrize("stream", [3])
def test_published_timestamps(stream: int, real: Path, decoder: str) -> None:
    if decoder == "decord":
        pytest.importorskip("decord")
    listed = json.loads(
        (real / "annotations" / "torchcodec-pts" / f"nasa_13013.mp4.stream{stream}.all_frames_info.json").read_text()
    )
    video = Video.open(real / "video" / "torchcodec__nasa_13013.mp4", decoder=decoder)
    assert video.track.stream == stream
    frames = list(video.read(0.0, video.duration_s, None, size=(16, 9)))
    assert [f.timestamp_s for f in frames] == pytest.approx([float(x["pts_time"]) for x in listed], abs=1e-6)

"""`Video` itself, the sampling policies, the frame store, and the real files against what is known of them."""

from __future__ import annotations

import hashlib
import math
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playhead.core.decoders import DecodedFrame
from playhead.core.errors import PlayheadError
from playhead.core.frames import FrameStore, UnknownFrame
from playhead.core.home import cache_dir
from playhead.core.sampling import fps_times, uniform_times, window_times
from playhead.core.video import Video

from .conftest import Made, read_card


def test_the_id_is_the_content(made: Callable[[str], Made], tmp_path: Path) -> None:
    content = made("cfr.mp4").path.read_bytes()
    copy = tmp_path / "other name.MOV"
    copy.write_bytes(content)
    assert Video.open(copy).id == Video.open(made("cfr.mp4").path).id == hashlib.sha256(content).hexdigest()


def test_relative_and_odd_paths(made: Callable[[str], Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "100% \u00e9t\u00e9 #1?.mp4"
    odd.write_bytes(made("cfr.mp4").path.read_bytes())
    monkeypatch.chdir(tmp_path)
    video = Video.open(odd.name)
    assert video.path == odd and read_card(video.frames_at([2.0])[0].pixels) == 50


def test_streams_are_told(made: Callable[[str], Made]) -> None:
    streams = Video.open(made("late_picture.mp4").path).streams
    assert sorted((s.kind, s.codec) for s in streams) == [("audio", "aac"), ("video", "h264")]


def test_a_video_can_be_sent_and_shared(made: Callable[[str], Made]) -> None:
    video = pickle.loads(pickle.dumps(Video.open(made("cfr.mp4").path)))  # what process pools do
    seen: dict[int, int] = {}

    def look(number: int) -> None:
        seen[number] = read_card(video.frames_at([number * 0.04])[0].pixels)

    threads = [threading.Thread(target=look, args=(i,)) for i in range(0, 90, 15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {i: i for i in range(0, 90, 15)}


def test_repeated_and_no_times(made: Callable[[str], Made]) -> None:
    video = Video.open(made("cfr.mp4").path)
    assert video.frames_at([]) == []
    assert [read_card(f.pixels) for f in video.frames_at([2.0, 0.4, 2.0])] == [50, 10, 50]
    with pytest.raises(ValueError, match="finite"):
        video.frames_at([math.nan])
    with pytest.raises(ValueError, match="fps"):
        video.read(0.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="size"):
        video.frames_at([0.0], size=(0, 10))


def test_reading_can_stop_early(made: Callable[[str], Made]) -> None:
    frames = Video.open(made("cfr.mp4").path).read(1.0, 3.0, 5.0)
    assert read_card(next(frames).pixels) == 25
    frames.close()  # type: ignore[attr-defined]


def test_a_skim_is_different_keyframes(made: Callable[[str], Made]) -> None:
    frames = Video.open(made("cfr.mp4").path).skim(16)
    assert [read_card(f.pixels) for f in frames] == [0, 20, 40, 60, 80], "a keyframe every 20 frames"
    assert [f.timestamp_s for f in frames] == pytest.approx([0.0, 0.8, 1.6, 2.4, 3.2])


@given(st.floats(0.01, 1e5), st.integers(0, 200))
def test_uniform_times(duration_s: float, n: int) -> None:
    times = uniform_times(duration_s, n)
    assert len(times) == n and times == sorted(times) and all(0 < t < duration_s for t in times)


def test_uniform_times_are_centres() -> None:
    assert uniform_times(8.0, 4) == [1.0, 3.0, 5.0, 7.0]
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="duration"):
            uniform_times(bad, 4)
    with pytest.raises(ValueError, match="number of times"):
        uniform_times(1.0, -1)


@given(st.floats(0, 1e4), st.floats(0, 50), st.floats(0.1, 30))
def test_fps_times(start_s: float, width_s: float, fps: float) -> None:
    times = fps_times(start_s, start_s + width_s, fps)
    assert all(start_s <= t < start_s + width_s for t in times)
    assert len(times) == pytest.approx(width_s * fps, abs=1.01)


def test_fps_times_by_example() -> None:
    assert fps_times(1.0, 3.0, 2.0) == [1.0, 1.5, 2.0, 2.5]
    assert fps_times(0.0, 0.3, 10.0) == pytest.approx([0.0, 0.1, 0.2]), "0.3 is not there although 3 * 0.1 > 0.3"
    assert fps_times(2.0, 2.0, 1.0) == fps_times(3.0, 2.0, 1.0) == []
    with pytest.raises(ValueError, match="fps"):
        fps_times(0.0, 1.0, math.nan)


def test_window_times_stay_inside() -> None:
    assert window_times(5.0, 4.0, 4, 10.0) == [3.5, 4.5, 5.5, 6.5]
    assert window_times(0.0, 4.0, 2, 10.0) == [1.0, 3.0]
    assert window_times(10.0, 4.0, 2, 10.0) == [7.0, 9.0]
    assert window_times(1.0, 99.0, 2, 2.0) == [0.5, 1.5]


def picture(value: int, height: int = 4, width: int = 6) -> DecodedFrame:
    return DecodedFrame(timestamp_s=1.5, pixels=np.full((height, width, 3), value, np.uint8))


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_frame_comes_back(on_disk: bool, tmp_path: Path) -> None:
    store = FrameStore(tmp_path if on_disk else None)
    frame = store.put("v", picture(7))
    assert (frame.video_id, frame.timestamp_s, frame.width, frame.height) == ("v", 1.5, 6, 4)
    assert np.array_equal(store.pixels(frame), picture(7).pixels)
    assert not store.pixels(frame).flags.writeable
    assert store.put("w", picture(7)).sha256 == frame.sha256 != store.put("v", picture(8)).sha256
    assert store.put("v", picture(7, 6, 4)).sha256 != frame.sha256, "the same bytes in another shape"


def test_frames_leave_memory_but_not_the_disk(tmp_path: Path) -> None:
    room = picture(0).pixels.nbytes
    memory, disk = FrameStore(memory_bytes=2 * room), FrameStore(tmp_path, memory_bytes=2 * room)
    for store in (memory, disk):
        first, second, third = (store.put("v", picture(i)) for i in range(3))
        assert (store.pixels(third) == 2).all() and (store.pixels(second) == 1).all()
        if store is memory:
            with pytest.raises(UnknownFrame, match="not in memory"):
                store.pixels(first)
        else:
            assert (store.pixels(first) == 0).all()
    again = FrameStore(tmp_path)
    assert (again.pixels(first) == 0).all(), "another process finds it"
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".part")]


def test_a_damaged_file_is_an_unknown_frame(tmp_path: Path) -> None:
    frame = FrameStore(tmp_path).put("v", picture(3))
    (file,) = tmp_path.rglob("*.png")
    for content in (b"", b"words", file.read_bytes()[:-40]):
        file.write_bytes(content)
        with pytest.raises(PlayheadError, match="is not in"):
            FrameStore(tmp_path).pixels(frame)
    store = FrameStore(tmp_path)
    assert store.put("v", picture(3)).sha256 == frame.sha256
    assert (FrameStore(tmp_path).pixels(frame) == 3).all(), "putting it again mends the file"


def test_only_pictures_are_stored() -> None:
    with pytest.raises(ValueError, match="uint8"):
        FrameStore().put("v", DecodedFrame(timestamp_s=0.0, pixels=np.zeros((4, 4, 3), np.float32)))


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("PLAYHEAD_HOME")
    assert cache_dir() == Path.home() / ".cache" / "playhead"


# file, duration, size, frames, seconds of the first frame
REAL_FACTS = [
    ("pyscenedetect__counter.mp4", 3.0, (1920, 1080), 30, 0.0),
    ("pyscenedetect__delayed_start.mp4", 0.96, (480, 320), 24, 0.0),
    ("torchcodec__nasa_13013.mp4", 13.013, (480, 270), 390, 0.0),
    ("torchcodec__var_fps_video.mp4", 14.967, (128, 128), 300, 0.0),
    ("torchcodec__av1_video.mkv", 5.0, (640, 360), 125, 0.0),
    ("torchcodec__h265_10bits.mp4", 1.0, (200, 200), 30, 0.0),
    ("decord__video_90.mov", 0.1, (320, 568), 3, 0.0),
    ("decord__video_180.mov", 0.1, (568, 320), 3, 0.0),
    ("decord__unordered.mov", 0.125, (50, 50), 4, 0.0),
]


@pytest.mark.parametrize(("name", "duration_s", "size", "count", "first_s"), REAL_FACTS)
def test_real_facts(
    name: str, duration_s: float, size: tuple[int, int], count: int, first_s: float, real: Path
) -> None:
    video = Video.open(real / "video" / name)
    assert video.duration_s == pytest.approx(duration_s, abs=0.01) and (video.width, video.height) == size
    frames = list(video.read(0.0, video.duration_s, None, size=(16, 16)))
    assert len(frames) == count and frames[0].timestamp_s == first_s and not video.warnings


def test_a_late_first_pts_is_the_start(real: Path) -> None:
    """Its only stream starts at PTS 1.075 s; a grey ramp, brighter with every frame."""
    video = Video.open(real / "video" / "pyscenedetect__delayed_start.mp4")
    assert float(video.track.zero) == 1.075
    frames = video.frames_at([i / 25 for i in range(24)])
    assert [f.timestamp_s for f in frames] == pytest.approx([i / 25 for i in range(24)], abs=1e-9)
    levels = [float(f.pixels.mean()) for f in frames]
    assert len(set(levels)) > 12 and (levels == sorted(levels) or levels == sorted(levels, reverse=True))


def test_printed_numbers(real: Path) -> None:
    """`counter.mp4` prints "Frame = n" with n from 1 at n - 1 tenths of a second; each number is printed but once.

    The picture at t is compared with the one that a plain decoder gives as the nth, at full size.
    """
    import av

    path = real / "video" / "pyscenedetect__counter.mp4"
    with av.open(str(path)) as container:
        plain = [f.to_ndarray(format="rgb24")[780:1080, 1200:] for f in container.decode(video=0)]
    video = Video.open(path)
    times = [0.05, 2.95, 1.0, 0.999, 1.25, 2.0]
    for t, frame in zip(times, video.frames_at(times), strict=True):
        shown = frame.pixels[780:1080, 1200:].astype(int)
        nearest = min(range(30), key=lambda i: float(np.abs(shown - plain[i]).mean()))
        assert nearest == int(t * 10) and frame.timestamp_s == pytest.approx(nearest / 10)

"""Shot cuts: on a film whose cuts are known, on motion that is no cut, and beside a well-known detector's."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playhead.core.decoders.contract import DecodedFrame
from playhead.core.video import Video
from playhead.memory.shots import SIDE, detect_cuts, shot_bounds

REAL = Path(os.environ.get("PLAYHEAD_REAL", Path(__file__).resolve().parents[3] / "shared" / "real"))


def ignore(line: str) -> None: ...


def test_known_cuts_of_a_film(film: Callable[..., Path]):
    video = Video.open(film([("grey", 5), ("red", 4), ("blue", 3), ("green", 9), ("grey", 2)], fps=10))
    cuts = detect_cuts(video.read(0.0, video.duration_s, fps=None))
    assert cuts == [5.0, 9.0, 12.0, 21.0]


def test_motion_and_slow_fades_are_no_cuts():
    texture = np.random.default_rng(0).integers(0, 256, (48, 400, 3), dtype=np.uint8)
    moving = [DecodedFrame(timestamp_s=i / 25, pixels=texture[:, 3 * i : 3 * i + 64]) for i in range(100)]
    assert detect_cuts(moving) == []
    fade = [DecodedFrame(timestamp_s=i / 25, pixels=np.full((48, 64, 3), 2 * i, np.uint8)) for i in range(100)]
    assert detect_cuts(fade) == []


def test_a_flash_does_not_make_two_cuts():
    dark, light = np.zeros((48, 64, 3), np.uint8), np.full((48, 64, 3), 255, np.uint8)
    pixels = [dark] * 30 + [light] + [dark] * 30
    assert len(detect_cuts(DecodedFrame(timestamp_s=i / 25, pixels=p) for i, p in enumerate(pixels))) <= 1
    assert detect_cuts([]) == []


def test_long_shots_are_split_and_bounds_are_saved(film: Callable[..., Path], tmp_path: Path):
    video = Video.open(film([("grey", 30), ("red", 5)]))
    bounds = shot_bounds(video, 12.0, root=tmp_path, report=ignore)
    assert bounds.tolist() == pytest.approx([0, 10, 20, 30, 35])
    (saved,) = tmp_path.iterdir()
    before = saved.stat().st_mtime_ns
    assert shot_bounds(video, 40.0, root=tmp_path, report=ignore).tolist() == pytest.approx([0, 30, 35])
    assert saved.stat().st_mtime_ns == before


@pytest.mark.parametrize(("name", "most_missed"), [("testvideo", 1), ("counter", 0)])
def test_beside_the_cuts_of_pyscenedetect(name: str, most_missed: int):
    """The one that may be missed ends a fade: its ratio is 2.9 at our scale, 3.0 at theirs."""
    film = REAL / "video" / f"pyscenedetect__{name}.mp4"
    golden = REAL / "annotations" / "pyscenedetect-goldens" / f"{name}.mp4.AdaptiveDetector.default.json"
    if not (film.is_file() and golden.is_file()):
        pytest.skip(f"the real material is not at {REAL} (set PLAYHEAD_REAL)")
    video = Video.open(film)
    scale = SIDE / max(video.width, video.height)
    size = (round(video.width * scale), round(video.height * scale))
    theirs = [frame / video.fps for frame in json.loads(golden.read_text())["cuts"]]
    # Their shortest shot is 15 frames, whatever the frame rate.
    ours = detect_cuts(video.read(0.0, video.duration_s, fps=None, size=size), min_shot_s=15 / video.fps)
    missed = [t for t in theirs if not any(abs(t - o) < 1.5 / video.fps for o in ours)]
    extra = [o for o in ours if not any(abs(t - o) < 1.5 / video.fps for t in theirs)]
    assert len(missed) <= most_missed and not extra, (missed, extra)

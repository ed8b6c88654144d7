"""ClipIndex: the retrieval rule, and an index on disk that is sound, rebuilt or resumed, but never wrong."""

import dataclasses
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playhead.core.nouns import Clip
from playhead.core.video import Video
from playhead.memory import embed
from playhead.memory.index import ClipIndex, IndexParams
from playhead.memory.store import ArrayStore

STORY = [("grey", 20), ("red", 4), ("grey", 36), ("blue", 4), ("grey", 10), ("red", 3), ("grey", 24)]
"""101 s: red at 20-24 and 74-77, blue at 60-64."""


@pytest.fixture(scope="session")
def video(film: Callable[..., Path]) -> Video:
    return Video.open(film(STORY))


@pytest.fixture
def lines() -> list[str]:
    return []


def test_best_moments_come_first(video: Video, colour_encoder: Any):
    index = ClipIndex.build(video, colour_encoder)
    hits = index.search("red", 2)
    assert len(index) == 101
    assert sorted(20 <= h.best_s < 24 for h in hits) == [False, True]
    assert sorted(74 <= h.best_s < 77 for h in hits) == [False, True]
    assert all(h.score > 0.95 and h.clip.contains(h.best_s) for h in hits)
    assert 60 <= index.search("blue", 1)[0].best_s < 64


def test_windows_start_at_the_stride_and_moments_keep_apart(video: Video, colour_encoder: Any):
    index = ClipIndex.build(video, colour_encoder)
    hits = index.search("grey", 100)
    assert 9 <= len(hits) <= 17
    for hit in hits:
        assert hit.clip.start_s % 2 == 0 and hit.clip.contains(hit.best_s)
        assert hit.clip.end_s in (hit.clip.start_s + 12, video.duration_s)
        assert all(abs(hit.best_s - other.best_s) >= 6 for other in hits if other is not hit)
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)


@pytest.mark.parametrize(
    ("t", "start_s", "end_s"),
    [(0, 0, 12), (5, 0, 12), (7, 2, 14), (50, 44, 56), (50.9, 44, 56), (51.1, 46, 58), (100, 90, 101), (101, 90, 101)],
)
def test_the_window_of_a_moment(video: Video, colour_encoder: Any, t: float, start_s: float, end_s: float):
    clip = ClipIndex.build(video, colour_encoder).clip_at(t)
    assert (clip.start_s, clip.end_s) == (start_s, pytest.approx(end_s))


def test_a_short_video_is_one_window(film: Callable[..., Path], colour_encoder: Any):
    video = Video.open(film([("red", 3)]))
    (hit,) = ClipIndex.build(video, colour_encoder).search("red", 5)
    assert (hit.clip.start_s, hit.clip.end_s) == (0.0, pytest.approx(3.0))


def test_within_restricts(video: Video, colour_encoder: Any):
    index = ClipIndex.build(video, colour_encoder)
    within = Clip(video_id=video.id, start_s=30.0, end_s=75.5)
    hits = index.search("red", 3, within=within)
    assert hits[0].best_s in (74.0, 75.0)
    assert all(within.start_s <= h.clip.start_s and h.clip.end_s <= within.end_s for h in hits)
    assert index.search("red", 3, within=Clip(video_id=video.id, start_s=30.2, end_s=30.4)) == []


def test_search_by_image(video: Video, colour_encoder: Any):
    index = ClipIndex.build(video, colour_encoder)
    (shown,) = video.frames_at([61.0])
    assert 60 <= index.search(shown.pixels, 1)[0].best_s < 64
    with pytest.raises(ValueError, match="uint8"):
        index.search(np.zeros((4, 4, 3)), 1)
    with pytest.raises(ValueError, match="at least 1"):
        index.search("red", 0)


def test_shots_mode_answers_with_shots(video: Video, colour_encoder: Any, tmp_path: Path, lines: list[str]):
    params = IndexParams(mode="shots")
    shares: list[float] = []
    index = ClipIndex.build(video, colour_encoder, params, root=tmp_path, report=lines.append, progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0 and lines == []
    spans = {(h.clip.start_s, h.clip.end_s) for h in index.search("red", 2)}
    assert spans == {(20.0, 24.0), (74.0, 77.0)}
    clips = [h.clip for h in index.search("grey", 100)]
    assert len(set(clips)) == len(clips) and all(c.duration_s <= 12.01 for c in clips)


@pytest.mark.parametrize("bad", [{"fps": 0}, {"window_s": -1}, {"stride_s": float("nan")}, {"mode": "scenes"}])
def test_impossible_parameters_are_refused(bad: dict[str, Any]):
    with pytest.raises(ValueError):
        IndexParams(**bad)


def test_a_saved_index_is_loaded_not_built(
    video: Video, colour_encoder: Any, tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(embed, "PIECE_FRAMES", 40)
    shares: list[float] = []
    first = ClipIndex.build(video, colour_encoder, root=tmp_path, report=lines.append, progress=shares.append)
    encoded = colour_encoder.encoded
    second = ClipIndex.build(video, colour_encoder, root=tmp_path, report=lines.append)
    assert colour_encoder.encoded == encoded and lines == []
    assert first.search("red", 3) == second.search("red", 3)
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_another_encoder_or_rate_is_another_index(video: Video, colour_encoder: Any, tmp_path: Path):
    ClipIndex.build(video, colour_encoder, root=tmp_path)
    colour_encoder.fingerprint = "colour-2"
    ClipIndex.build(video, colour_encoder, root=tmp_path)
    assert len(ClipIndex.build(video, colour_encoder, IndexParams(fps=0.5), root=tmp_path)) == 51
    assert len(list(tmp_path.glob("frames-*.npz"))) == 3
    # The way clips are cut changes nothing that is on disk.
    encoded = colour_encoder.encoded
    ClipIndex.build(video, colour_encoder, IndexParams(window_s=20.0), root=tmp_path)
    assert colour_encoder.encoded == encoded


@pytest.mark.parametrize("harm", ["cut", "flip", "foreign", "shape"])
def test_a_damaged_or_foreign_index_is_rebuilt(
    video: Video, colour_encoder: Any, tmp_path: Path, lines: list[str], harm: str
):
    expected = ClipIndex.build(video, colour_encoder, root=tmp_path).search("red", 3)
    (path,) = tmp_path.glob("*.npz")
    data = path.read_bytes()
    if harm == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif harm == "flip":
        path.write_bytes(data[:700] + bytes([data[700] ^ 1]) + data[701:])
    elif harm == "foreign":
        ClipIndex.build(dataclasses.replace(video, id="another"), colour_encoder, root=tmp_path)
        next(tmp_path.glob("*another*.npz")).replace(path)
    else:
        wrong = {"times_s": np.arange(3.0), "vectors": np.ones((3, 9), np.float32)}
        ArrayStore(tmp_path, lines.append).save(path.stem, wrong)
    assert ClipIndex.build(video, colour_encoder, root=tmp_path, report=lines.append).search("red", 3) == expected
    assert len(lines) == 1 and "anew" in lines[0]
    assert ClipIndex.build(video, colour_encoder, root=tmp_path, report=lines.append).search("red", 3) == expected
    assert len(lines) == 1


def test_a_killed_build_goes_on_where_it_was(
    video: Video, colour_encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(embed, "PIECE_FRAMES", 20)
    expected = ClipIndex.build(video, colour_encoder).search("red", 3)
    colour_encoder.encoded = 0

    def die(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ClipIndex.build(video, colour_encoder, root=tmp_path, progress=die)
    done = colour_encoder.encoded
    resumed = ClipIndex.build(video, colour_encoder, root=tmp_path)
    assert 40 <= done < 101 and colour_encoder.encoded <= 101 + 20
    assert resumed.search("red", 3) == expected
    assert len(list(tmp_path.iterdir())) == 1


def test_two_processes_may_build_the_same_index(video: Video, colour_encoder: Any, tmp_path: Path):
    def build(out: Any) -> None:
        embed.PIECE_FRAMES = 10
        out.put(ClipIndex.build(video, colour_encoder, root=tmp_path).search("red", 3))

    context = multiprocessing.get_context("fork")
    out = context.Queue()
    processes = [context.Process(target=build, args=(out,)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [out.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert found[0] == found[1] == found[2] == ClipIndex.build(video, colour_encoder, root=tmp_path).search("red", 3)
    assert len(list(tmp_path.iterdir())) == 1

"""Pixels and films of a scene: deterministic, readable, and true to the script."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from playhead.world.film import film_times, write_film
from playhead.world.render import HUES, render
from playhead.world.scene import COLOURS, SHAPES, Event, Scene


def event(start_s: float, end_s: float, shape: str, colour: str, digit: int | None = None) -> Event:
    return Event(
        start_s=start_s,
        end_s=end_s,
        shape=shape,
        colour=colour,
        motion="right",
        x0=0.3,
        y0=0.4,
        x1=0.7,
        y1=0.4,
        digit=digit,
    )


SCENE = Scene(
    seed=11,
    duration_s=12,
    events=(event(2, 5, "square", "red"), event(6, 9, "circle", "cyan"), event(10, 12, "cross", "yellow", 3)),
)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(SCENE, tmp_path_factory.mktemp("film") / "film.mp4")


def decoded(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(frame.time or 0.0, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def test_render_is_a_function_of_scene_and_time() -> None:
    first = render(SCENE, 3.0)
    assert first.shape == (192, 192, 3) and first.dtype == np.uint8
    assert np.array_equal(first, render(SCENE, 3.0))
    assert not np.array_equal(first, render(SCENE, 3.125))
    other = Scene(seed=12, duration_s=12, events=SCENE.events)
    assert not np.array_equal(render(SCENE, 0.0), render(other, 0.0))
    assert render(SCENE, 3.0, size=64).shape == (64, 64, 3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
def test_objects_are_whole_and_in_their_hue(shape: str, colour: str) -> None:
    there = Event(
        start_s=0, end_s=4, shape=shape, colour=colour, motion="still", x0=0.24, y0=0.76, x1=0.24, y1=0.76, size=0.5
    )
    frame = render(Scene(seed=3, duration_s=4, events=(there,)), 1.0).astype(int)
    empty = render(Scene(seed=3, duration_s=4, events=()), 1.0).astype(int)
    rows, columns = np.nonzero(np.abs(frame - empty).sum(-1) > 60)
    centre = ((columns.min() + columns.max()) / 2 / 192, (rows.min() + rows.max()) / 2 / 192)
    assert centre == pytest.approx((0.24, 0.76), abs=0.03)
    assert columns.min() >= 0 and rows.max() <= 191 and (columns.max() - columns.min()) / 192 > 0.4
    hue = np.abs(frame - np.array(HUES[colour])).sum(-1) < 6
    assert hue.sum() > 0.05 * frame.shape[0] ** 2


def test_digits_differ_and_stay_legible_when_small() -> None:
    def plate(digit: int) -> np.ndarray:
        frame = render(Scene(seed=3, duration_s=4, events=(event(0, 4, "ring", "blue", digit),)), 2.0, size=64)
        return frame[16:36, 24:40].astype(int)

    plates = [plate(digit) for digit in range(10)]
    for i, a in enumerate(plates):
        assert a.max() > 240 and a.min() < 20
        assert all(np.abs(a - b).mean() > 5 for b in plates[:i])


def test_film_has_the_times_it_claims(film: Path) -> None:
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.average_rate == SCENE.fps
        assert container.duration == pytest.approx(SCENE.duration_s * 1e6)
        kinds = {PictureType(frame.pict_type).name for frame in container.decode(video=0)}
    assert {"I", "P", "B"} <= kinds
    assert [t for t, _ in decoded(film)] == pytest.approx(film_times(SCENE))
    head = film.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")
    assert len(head) < 200_000
    assert [p.name for p in film.parent.iterdir()] == ["film.mp4"]


def test_film_shows_its_events(film: Path) -> None:
    for t, frame in decoded(film):
        there = SCENE.event_at(t)
        if there is None:
            spread = frame.astype(int).max(-1) - frame.astype(int).min(-1)
            assert spread.max() < 120, f"something colourful at {t}"
            continue
        x, y = there.position(t)
        # Beside the digit's plate, inside the object.
        dx = 0.16 * (there.digit is not None)
        patch = frame[int(y * 192) - 4 : int(y * 192) + 4, int((x + dx) * 192) - 4 : int((x + dx) * 192) + 4]
        assert np.abs(patch.reshape(-1, 3).mean(0) - HUES[there.colour]).max() < 40, t


def test_progress_and_failure_leave_no_half_film(tmp_path: Path) -> None:
    seen: list[float] = []
    short = Scene(seed=1, duration_s=1, events=())
    write_film(short, tmp_path / "a" / "film.mp4", progress=seen.append)
    assert seen[0] == 0 and seen[-1] == 1

    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_film(short, tmp_path / "b" / "film.mp4", progress=stop)
    assert not list((tmp_path / "b").iterdir())

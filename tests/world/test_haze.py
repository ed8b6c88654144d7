"""Haze: the same scenes, questions and answers, with objects of which the background takes a share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playhead.cli.app import run
from playhead.core.tasks import read_tasks
from playhead.world.make import make_world
from playhead.world.questions import ALL_KINDS, make_tasks
from playhead.world.render import render
from playhead.world.script import make_cast, scene_of

SEED = 41


@pytest.mark.parametrize("rich", [False, True])
def test_it_changes_no_event_and_no_answer(rich: bool) -> None:
    for seed in range(40):
        clear, hazy = make_cast(seed, 8, rich=rich), make_cast(seed, 8, rich=rich, haze=0.4)
        assert replace(hazy, scene=replace(hazy.scene, haze=0.0)) == clear
        kinds = ALL_KINDS if rich else ("motion", "when")
        asked, known = make_tasks(hazy, "v", "id", kinds=kinds), make_tasks(clear, "v", "id", kinds=kinds)
        assert [replace(t, meta={}) for t in asked] == [replace(t, meta={}) for t in known]
        assert {t.meta["haze"] for t in asked} == {"0.4"} and not any("haze" in t.meta for t in known)
        assert scene_of(asked[0].meta) == hazy.scene and scene_of(known[0].meta) == clear.scene


@pytest.mark.parametrize("haze", [0.2, 0.4, 0.7])
def test_an_object_is_as_much_fainter(haze: float) -> None:
    """What it differs from the bare background by is the clear difference times the opacity; and nothing else changes."""
    clear = make_cast(SEED, 8, rich=True).scene
    hazy, bare = replace(clear, haze=haze), replace(clear, events=())
    for event in clear.events:
        t_s = event.start_s + 1.0
        under = render(bare, t_s).astype(float)
        full, faint = render(clear, t_s) - under, render(hazy, t_s) - under
        assert np.abs(full).max() > 60
        assert np.abs(faint - (1 - haze) * full).max() < 0.501  # whole grey levels
        assert np.array_equal(render(hazy, event.start_s - 2.0), render(clear, event.start_s - 2.0))


def test_a_hazy_film_lies_beside_the_clear_one(world: Path, tmp_path: Path) -> None:
    make_world(tmp_path, videos=1, minutes=4, seed=SEED, haze=0.4)
    tasks, known = read_tasks(tmp_path), read_tasks(world)
    assert [t.answer for t in tasks] == [t.answer for t in known]
    film = tmp_path / "videos" / f"world-{SEED}-240s-haze0.4.mp4"
    assert {Path(t.video).name for t in tasks} == {film.name} and film.is_file()
    assert tasks[0].evidence[0].video_id != known[0].evidence[0].video_id


@pytest.mark.parametrize("haze", ["1", "-0.1", "nan"])
def test_what_nothing_is_seen_through_is_refused(haze: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["world", "make", "--out", str(tmp_path / "w"), f"--haze={haze}"]) == 2
    assert "haze is a share from 0 (clear) to below 1; got" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "w").exists()

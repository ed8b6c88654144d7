"""A world on disk: which questions are asked of a film."""

from __future__ import annotations

import shutil
from pathlib import Path

from playhead.core.tasks import read_tasks
from playhead.world.make import make_world
from playhead.world.questions import KINDS


def test_several_draws_are_several_questions(world: Path, tmp_path: Path) -> None:
    """For a test, none is of moments that were asked about; for practice, words and options may be all that differs."""
    shutil.copytree(world / "videos", tmp_path / "videos")
    make_world(tmp_path, videos=1, minutes=4, seed=41, draws=6, repeats=False)
    asked = read_tasks(tmp_path)
    about = [(task.kind, task.evidence) for task in asked]
    assert len(KINDS) < len(about) == len(set(about))
    assert [task.id for task in asked[: len(KINDS)]] == [task.id for task in read_tasks(world)]
    make_world(tmp_path, videos=1, minutes=4, seed=41, draws=6)
    practice = read_tasks(tmp_path)
    assert {(task.kind, task.evidence) for task in practice} == set(about) and len(practice) > len(about)

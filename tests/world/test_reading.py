"""What `benchmarks/reading.py` counts: the oracle misreads nothing, and a note that is changed by hand is one misreading."""

import asyncio
import re
from dataclasses import replace

import pytest
from playhead.benchmarks.reading import Reading, count, judge
from playhead.core.tasks import read_tasks
from playhead.core.trajectory import Trajectory, read_trajectories, write_trajectories

RED_STAR = ("red", "star")
OTHER = {"circle": "ring", "ring": "circle"}


@pytest.mark.timeout(300)  # the film is made and indexed here
def test_the_oracle_misreads_nothing_and_a_changed_note_is_counted(world, tmp_path, monkeypatch):
    from playhead.train.data.collect import collect
    from playhead.train.data.jobs import Setup

    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    asyncio.run(collect(read_tasks(world), tmp_path / "set", Setup(model="oracle"), filters=()))
    file = tmp_path / "set" / "trajectories.jsonl"
    found = count(file)
    for closer in (False, True):
        assert found[closer][Reading.RIGHT] > 5 and set(found[closer]) <= {Reading.RIGHT, Reading.EMPTY}

    def spoil(trajectory: Trajectory) -> Trajectory:
        """With the first note of a circle or a ring in a closer look saying the other one."""
        turns = list(trajectory.turns)
        for i, turn in enumerate(turns):
            thought = re.sub(r"(circle|ring) x", lambda m: f"{OTHER[m[1]]} x", turn.thought, count=1)
            if thought != turn.thought:
                turns[i] = replace(turn, thought=thought)
                break
        return replace(trajectory, turns=tuple(turns))

    spoilt = [spoil(t) for t in read_trajectories(file)]
    write_trajectories(tmp_path / "spoilt.jsonl", spoilt)
    notes = sum(a != b for a, b in zip(spoilt, read_trajectories(file), strict=True))
    after = count(tmp_path / "spoilt.jsonl")[True]
    assert notes > 0, "the film shows a circle or a ring"
    assert after[Reading.SHAPE] == notes and after[Reading.RIGHT] == found[True][Reading.RIGHT] - notes


@pytest.mark.parametrize(
    ("said", "there", "reading"),
    [
        (RED_STAR, RED_STAR, Reading.RIGHT),
        (RED_STAR, ("red", "ring"), Reading.SHAPE),
        (RED_STAR, ("blue", "star"), Reading.COLOUR),
        (RED_STAR, ("blue", "ring"), Reading.BOTH),
        (RED_STAR, None, Reading.INVENTED),
        (None, RED_STAR, Reading.MISSED),
        (None, None, Reading.EMPTY),
    ],
)
def test_what_a_note_made_of_a_frame(said, there, reading):
    assert judge(said, there) is reading

"""The folder of a run survives interruption, refuses another run, and belongs to one process."""

import json
from pathlib import Path

import pytest
from playhead.core.errors import DataError
from playhead.core.trajectory import read_trajectories, to_json
from playhead.evals.ledger import Ledger
from playhead.evals.results import result_of

MANIFEST = {"model": "a", "frames": None, "versions": {"torch": "1"}}
IDENTITY = ("model", "frames")


def test_a_run_goes_on_after_an_interruption(tmp_path: Path, make_task, make_trajectory) -> None:
    first, second = make_task(number=1), make_task(number=2)
    with Ledger(tmp_path, MANIFEST, IDENTITY) as ledger:
        ledger.add(result_of(first, make_trajectory(first)), to_json(make_trajectory(first)))
    # The writer of the second task died: a whole trajectory without a result, then half a result.
    with (tmp_path / "trajectories.jsonl").open("a") as out:
        out.write(to_json(make_trajectory(second)) + "\n")
    with (tmp_path / "results.jsonl").open("a") as out:
        out.write('{"task_id": "motion-2", "ki')
    with Ledger(tmp_path, MANIFEST, IDENTITY) as ledger:
        assert list(ledger.results) == [first.id]
        ledger.add(result_of(second, make_trajectory(second)), to_json(make_trajectory(second)))
    assert [t.task.id for t in read_trajectories(tmp_path / "trajectories.jsonl")] == [first.id, second.id]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2


def test_a_run_of_something_else_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path, MANIFEST, IDENTITY):
        pass
    with Ledger(tmp_path, {**MANIFEST, "versions": {"torch": "2"}}, IDENTITY):
        pass  # versions may change between two parts of a run
    with pytest.raises(DataError, match="frames = None, this one has 8"):
        Ledger(tmp_path, {**MANIFEST, "frames": 8}, IDENTITY)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Ledger(tmp_path, MANIFEST, IDENTITY), pytest.raises(DataError, match="another process"):
        Ledger(tmp_path, MANIFEST, IDENTITY)


def test_damage_is_named_with_its_line(tmp_path: Path) -> None:
    with Ledger(tmp_path, MANIFEST, IDENTITY):
        pass
    (tmp_path / "results.jsonl").write_text("not json\n")
    with pytest.raises(DataError, match=r"results.jsonl:1"):
        Ledger(tmp_path, MANIFEST, IDENTITY)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(DataError, match="not a folder"):
        Ledger(tmp_path / "run", MANIFEST, IDENTITY)


def test_a_written_file_is_whole(tmp_path: Path) -> None:
    with Ledger(tmp_path, MANIFEST, IDENTITY) as ledger:
        path = ledger.write("summary.json", {"accuracy": 1.0})
    assert json.loads(path.read_text()) == {"accuracy": 1.0}
    assert not list(tmp_path.glob("*.part"))

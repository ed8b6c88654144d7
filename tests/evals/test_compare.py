"""Two runs task by task: what counts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playhead.core.codec import to_plain
from playhead.core.errors import DataError
from playhead.evals.compare import compare, comparison_table
from playhead.evals.results import TaskResult


def write(folder: Path, rights: dict[str, bool], frames: int, recall: float | None = 0.5) -> Path:
    folder.mkdir()
    results = [
        TaskResult(task_id=i, kind="k", video=f"v{n % 3}", score=float(r), right=r, frames=frames + n % 2, recall=recall)
        for n, (i, r) in enumerate(rights.items())
    ]
    (folder / "results.jsonl").write_text("".join(json.dumps(to_plain(r)) + "\n" for r in results))
    return folder


def test_only_tasks_of_both_count_and_each_against_itself(tmp_path):
    before = write(tmp_path / "a", {f"t{i}": i < 4 for i in range(10)} | {"only before": True}, frames=20)
    after = write(tmp_path / "b", {f"t{i}": i != 0 for i in reversed(range(10))}, frames=10, recall=None)
    made = compare(before, after)
    assert (made.tasks, made.only_before, made.only_after) == (10, 1, 6)
    assert made.p == pytest.approx(2 * (1 + 7) / 2**7)
    right, frames = made.changes["right"], made.changes["frames"]
    assert (right.before, right.after) == (0.4, 0.9) and frames.after - frames.before == pytest.approx(-10)
    assert right.interval is not None and right.interval[0] <= 0.5 <= right.interval[1]
    assert "recall" not in made.changes, "unknown in one of the runs"
    assert len(comparison_table(made, "a", "b").rows) == len(made.changes)


def test_runs_that_cannot_be_compared_are_refused(tmp_path):
    one, other = write(tmp_path / "a", {"x": True}, 1), write(tmp_path / "b", {"y": True}, 1)
    with pytest.raises(DataError, match="no task in common"):
        compare(one, other)
    with pytest.raises(DataError, match=r"no results.jsonl there"):
        compare(one, tmp_path)
    (other / "results.jsonl").write_text("not json\n")
    with pytest.raises(DataError, match=r"results.jsonl:1"):
        compare(one, other)

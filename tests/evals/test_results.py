"""What an episode came to, and the shares and intervals of a run."""

from dataclasses import replace
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playhead.evals.report import summarise, table
from playhead.evals.results import looked_at, malformed_calls, result_of
from playhead.evals.stats import mean, share, wilson
from rich.console import Console


def test_a_right_episode(make_task, make_trajectory) -> None:
    task = make_task()
    result = result_of(task, make_trajectory(task))
    assert result.right and result.score == 1.0
    assert result.recall == 1.0 and result.cited_iou == 1.0 and result.cited == ("100.0-106.0",)
    assert (result.calls, result.malformed, result.frames) == (2, 0, 5)
    assert result.video == "a.mp4"


def test_without_an_answer_it_is_wrong_and_says_why(make_task, make_trajectory) -> None:
    task = make_task()
    result = result_of(task, make_trajectory(task, said=None))
    assert not result.right and result.answer is None and result.stop_reason == "max_turns"


def test_when_is_scored_by_overlap(make_task, make_trajectory) -> None:
    task = make_task(kind="when", answer="100.0-106.0")
    assert result_of(task, make_trajectory(task, said="100.0-112.0")).score == pytest.approx(0.5)
    assert result_of(task, make_trajectory(task, said="100.0-112.0")).right
    assert not result_of(task, make_trajectory(task, said="100.0-113.0")).right


def test_refused_calls_are_counted_as_malformed(make_task, make_trajectory) -> None:
    task = make_task()
    assert malformed_calls(make_trajectory(task, refused=2)) == 2


def test_without_tools_the_shown_frames_count_a_second_each(make_task, make_trajectory) -> None:
    task = make_task()
    stretches = looked_at(make_trajectory(task), with_tools=False)
    assert [(c.start_s, c.end_s) for c in stretches][:2] == [(149.5, 150.5), (449.5, 450.5)]


@given(st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share(right_n: tuple[int, int]) -> None:
    right, n = right_n
    low, high = wilson(right, n)
    assert 0.0 <= low <= high <= 1.0
    if n:
        assert low <= right / n <= high


def test_wilson_equals_a_published_example() -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, Wilson without correction: .2553 to .3662
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)  # same table: 0 of 20


def test_means_know_when_they_are_empty() -> None:
    assert mean([None, 1.0, 3.0]) == 2.0
    assert mean([None]) is None
    assert share([True, False, None]) == 0.5


def test_the_summary_has_accuracy_on_top_and_every_kind(make_task, make_trajectory) -> None:
    tasks = [make_task(number=i) for i in range(3)] + [make_task(kind="when", answer="100.0-106.0", number=9)]
    said = ["left", "right", None, "100.0-106.0"]
    results = [result_of(t, make_trajectory(t, said=s, refused=i)) for i, (t, s) in enumerate(zip(tasks, said, strict=True))]
    summary = summarise(results, {"model": "by hand", "strategy": "tools"})
    assert summary["accuracy"] == 0.5
    assert summary["kinds"]["motion"]["right"] == 1 and summary["kinds"]["when"]["when_iou"] == 1.0
    assert summary["calls"] == 14 and summary["malformed_calls"] == 6
    assert summary["looked_at"] == 1.0
    assert table(summary, results).row_count == 3


def test_the_table_reads_well_in_80_columns(make_task, make_trajectory) -> None:
    tasks = [make_task(kind="attribute", number=i) for i in range(300)]
    results = [replace(result_of(t, make_trajectory(t)), frames=128, wall_s=1234.5) for t in tasks]
    summary = summarise(results, {"model": "/models/Qwen3-VL-8B-Instruct", "strategy": "tools"})
    out = StringIO()
    Console(width=80, file=out).print(table(summary, results))
    said = out.getvalue()
    header, row = (line for line in said.splitlines() if line.startswith(("kind", "attribute")))
    assert header.split() == ["kind", "tasks", "right", "95%", "IoU", "recall", "looked", "frames", "calls", "secs"]
    assert row.split()[:4] == ["attribute", "300", "100.0%", "99-100%"] and "1234.5" in row
    assert "…" not in said


def test_an_empty_run_has_a_summary_too() -> None:
    assert summarise([], {})["accuracy"] is None

"""The bill against values worked out by hand: tests of pairs, intervals by video, fronts, and what is named."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playhead.core.errors import DataError
from playhead.evals.bill import make_bill
from playhead.evals.calibration import calibrate
from playhead.evals.cost import Cost
from playhead.evals.grid import cells_of
from playhead.evals.manifest import Setup
from playhead.evals.pareto import cheapest_within, pareto_front
from playhead.evals.results import TaskResult
from playhead.evals.statement import bill_table, page, pair_lines, verdict
from playhead.evals.stats import cluster_bootstrap, holm, mcnemar_exact


def test_mcnemar_by_hand() -> None:
    assert mcnemar_exact(0, 0) == 1.0 and mcnemar_exact(3, 3) == 1.0
    assert mcnemar_exact(0, 5) == pytest.approx(2 / 32)
    assert mcnemar_exact(1, 9) == mcnemar_exact(9, 1) == pytest.approx(2 * (1 + 10) / 1024)
    with pytest.raises(ValueError, match="below zero"):
        mcnemar_exact(-1, 2)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_a_probability(a: int, b: int) -> None:
    assert 0.0 < mcnemar_exact(a, b) <= 1.0
    assert mcnemar_exact(a, a + b + 1) <= mcnemar_exact(a, a + b) + 1e-12


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0]) and holm([]) == []


def test_a_bootstrap_takes_whole_videos() -> None:
    # Within a video all answers are alike: ten questions of it are worth one.
    alike, videos = [1.0] * 10 + [0.0] * 10, ["a"] * 10 + ["b"] * 10
    assert cluster_bootstrap(alike, videos) == (0.0, 1.0)
    each = cluster_bootstrap(alike, [str(i) for i in range(20)])
    assert each is not None and each[0] > 0.2 and each[1] < 0.8
    assert cluster_bootstrap(alike, videos) == cluster_bootstrap(alike, videos)
    assert cluster_bootstrap([1.0, 0.0], ["a", "a"]) is None


def test_the_front_by_hand() -> None:
    points = [(10, 0.5), (20, 0.5), (5, 0.2), (20, 0.9), (30, 0.8), (10, 0.5)]
    assert pareto_front(points) == [2, 0, 3]
    assert cheapest_within(points, 0.0) == 3 and cheapest_within(points, 0.4) == 0 and cheapest_within(points, 0.7) == 2
    assert cheapest_within([(9, 0.91), (5, 0.90), (4, 0.8999)], 0.01) == 1, "one point is inside, more is not"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_nothing_beats_the_front(points: list[tuple[float, float]]) -> None:
    front = pareto_front(points)
    for i, (cost, accuracy) in enumerate(points):
        better = [c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points]
        assert (i in front) <= (not any(better))
        assert any(points[j][0] <= cost and points[j][1] >= accuracy for j in front)


def result(video: int, number: int, right: bool, frames: int, tokens: int) -> TaskResult:
    return TaskResult(
        task_id=f"{video}-{number}",
        kind="motion",
        video=f"{video}.mp4",
        score=float(right),
        right=right,
        frames=frames,
        prefill_tokens=tokens,
        sampled_tokens=10,
        model_calls=1,
        wall_s=0.5,
        confidence=0.9 if right else 0.6,
    )


@pytest.fixture
def bill():
    """40 tasks about 8 videos: tools right in 30, direct in 10, vote in 38; a budget more buys vote nothing."""
    cells = cells_of(Setup(), ["tools", "direct", "vote"], [{"frames": 16}, {"frames": 64}])
    right, tokens = {"tools": 30, "direct": 10, "vote(tools)": 38}, {"tools": 400, "direct": 200, "vote(tools)": 1600}
    made = {
        c.key: [
            result(v, n, v + 8 * n < right[c.strategy], c.setup.limits["frames"] // 2, tokens[c.strategy])
            for n, v in product(range(5), range(8))
        ]
        for c in cells
    }
    return make_bill(cells, made)


def test_what_the_bill_says(bill) -> None:
    tools, direct, vote = (bill.rows[i].strategy for i in (0, 2, 4))
    assert (bill.tasks, bill.videos, bill.best) == (40, 8, f"{vote} frames=16")
    assert bill.fronts["tokens"] == (f"{direct} frames=16", f"{tools} frames=16", f"{vote} frames=16")
    assert bill.cheapest["frames"] == f"{vote} frames=16" and bill.rows[0].at(Cost.TOKENS) == 410
    pairs = {(p.first, p.second): p for p in bill.pairs}
    step = pairs[f"{tools} frames=16", f"{vote} frames=16"]
    assert (
        step.why == "front" and step.difference == pytest.approx(0.2) and (step.only_first, step.only_second) == (0, 8)
    )
    assert step.p == pytest.approx(2 / 256) and step.p_adjusted >= step.p and step.by_video is not None
    worse = pairs[f"{tools} frames=64", f"{direct} frames=64"]
    assert worse.why == "same budget" and worse.difference == pytest.approx(-0.5)
    assert len(pairs) == 4, "two steps on the front, one of them also a comparison within 16 frames; two within 64"


def test_each_strategy_at_its_best(bill) -> None:
    tools, direct, vote = (bill.rows[i].strategy for i in (0, 2, 4))
    assert bill.at_their_best == tuple(f"{s} frames=16" for s in (tools, direct, vote)), "equals: the first"
    rows = [replace(r, accuracy=0.9) if r.cell == f"{direct} frames=64" else r for r in bill.rows]
    assert replace(bill, rows=tuple(rows)).at_their_best[1] == f"{direct} frames=64"


def test_the_statement(bill) -> None:
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    Console(width=80, file=out).print(bill_table(bill))
    assert "…" not in out.getvalue() and "75.0%" in out.getvalue()
    assert any("+20.0 points" in line and "p 0.008" in line for line in pair_lines(bill))
    lines = verdict(bill, [Cost.TOKENS, Cost.SECONDS])
    assert "95.0% right (38 of 40; 8 videos)" in lines[0] and "1,610 tokens computed per question" in lines[1]
    assert "<script" not in page(bill, [Cost.TOKENS], [], "<script>")


def test_pictures(bill, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    from playhead.evals.picture import draw_bill, draw_reliability

    draw_bill(bill, [Cost.TOKENS, Cost.FRAMES], tmp_path / "a" / "bill.png", "title")
    draw_bill(bill, [Cost.SECONDS], tmp_path / "bill.svg")
    assert (tmp_path / "a" / "bill.png").read_bytes()[:4] == b"\x89PNG"
    text = (tmp_path / "bill.svg").read_text()
    assert "</svg>" in text
    draw_reliability({"tools": calibrate([(0.9, True), (0.2, False)]), "none": calibrate([])}, tmp_path / "r.png")
    assert not list(tmp_path.rglob("*.part"))
    with pytest.raises(DataError, match=r"\.png"):
        draw_bill(bill, [Cost.TOKENS], tmp_path / "bill.docx")


def test_without_matplotlib_one_line_says_what_to_do(bill, tmp_path, monkeypatch) -> None:
    from playhead.evals import picture

    monkeypatch.setattr(picture, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'playhead\[plots\]'"):
        picture.draw_bill(bill, [Cost.TOKENS], tmp_path / "bill.png")

"""The bill: what a point of accuracy costs, from the results of a grid.

For each cell the share of right answers with its Wilson interval, and with the interval that a bootstrap over videos gives;
for each currency (`cost.py`) the mean cost, the Pareto front and the cheapest cell within one point of the best. Pairs of
cells are compared on the same tasks, with McNemar's exact test and a bootstrap over videos:

- neighbours on the front: is the next step up real?
- under each budget, every other strategy against the plain agent (the first strategy, where "tools" is not in the grid).

p-values come as they are, and adjusted for how many pairs there are (Holm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..core.codec import to_plain
from .calibration import calibrate
from .cost import COUNTED, Cost
from .pareto import cheapest_within, pareto_front
from .results import TaskResult
from .stats import cluster_bootstrap, holm, mcnemar_exact, mean, wilson

if TYPE_CHECKING:
    from .grid import Cell

MARGIN = 0.01
"""One point: so much less than the best is as good."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One cell. `cost` holds means per question by currency; `reused` is the share of prompt tokens taken from a cache."""

    cell: str
    strategy: str
    budget: str
    tasks: int
    right: int
    accuracy: float
    low: float
    high: float
    by_video: tuple[float, float] | None
    cost: dict[str, float]
    reused: float
    runs: float
    ece: float | None
    brier: float | None
    errors: int
    stop_reasons: dict[str, int]

    def at(self, cost: Cost) -> float:
        return self.cost[cost.value]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """`second` against `first` on the same tasks. `difference` is the accuracy of `second` less that of `first`."""

    why: str
    first: str
    second: str
    difference: float
    by_video: tuple[float, float] | None
    only_first: int
    only_second: int
    p: float
    p_adjusted: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Bill:
    """`fronts` and `cheapest` name cells, by currency; `best` is the most accurate cell, the cheaper of equals."""

    tasks: int
    videos: int
    rows: tuple[Row, ...]
    best: str
    cheapest: dict[str, str]
    fronts: dict[str, tuple[str, ...]]
    pairs: tuple[Pair, ...]

    def row(self, cell: str) -> Row:
        return next(r for r in self.rows if r.cell == cell)

    @property
    def at_their_best(self) -> tuple[str, ...]:
        """The most accurate cell of each strategy; the first of equals."""
        best: dict[str, Row] = {}
        for row in self.rows:
            best[row.strategy] = max(best.get(row.strategy, row), row, key=lambda r: r.accuracy)
        return tuple(row.cell for row in best.values())

    def plain(self) -> dict[str, Any]:
        """What `results.json` holds: nothing that depends on how long it took."""
        rows = [{**to_plain(r), "cost": {c.value: r.at(c) for c in COUNTED}} for r in self.rows]
        counted = {c.value for c in COUNTED}
        return {
            **to_plain(self),
            "rows": rows,
            "cheapest": {c: v for c, v in self.cheapest.items() if c in counted},
            "fronts": {c: list(v) for c, v in self.fronts.items() if c in counted},
            "pairs": [to_plain(p) for p in self.pairs],
        }


def make_bill(cells: Sequence[Cell], results: Mapping[str, Sequence[TaskResult]]) -> Bill:
    """Args: results: by cell, of the same tasks in the same order."""
    rows = tuple(_row(c, results[c.key]) for c in cells)
    points = {cost: [(r.at(cost), r.accuracy) for r in rows] for cost in Cost}
    fronts = {cost.value: tuple(rows[i].cell for i in pareto_front(points[cost])) for cost in Cost}
    first = next(iter(results.values()))
    return Bill(
        tasks=len(first),
        videos=len({r.video for r in first}),
        rows=rows,
        best=rows[cheapest_within(points[Cost.TOKENS], 0.0)].cell,
        cheapest={cost.value: rows[cheapest_within(points[cost], MARGIN)].cell for cost in Cost},
        fronts=fronts,
        pairs=_pairs(rows, fronts[Cost.TOKENS.value], results),
    )


def seconds_of(results: Mapping[str, Sequence[TaskResult]]) -> dict[str, Any]:
    """`seconds.json`: means per question and sums, by cell."""
    return {
        key: {"mean_s": round(mean(r.wall_s for r in done) or 0.0, 3), "sum_s": round(sum(r.wall_s for r in done), 1)}
        for key, done in results.items()
    }


def _row(cell: Cell, done: Sequence[TaskResult]) -> Row:
    n, right = len(done), sum(r.right for r in done)
    low, high = wilson(right, n)
    sure = calibrate((r.confidence, r.right) for r in done)
    prompt = sum(r.prefill_tokens + r.reused_tokens for r in done)
    return Row(
        cell=cell.key,
        strategy=cell.strategy,
        budget=cell.budget,
        tasks=n,
        right=right,
        accuracy=right / n,
        low=low,
        high=high,
        by_video=cluster_bootstrap([float(r.right) for r in done], [r.video for r in done]),
        cost={cost.value: mean(cost.of(r) for r in done) or 0.0 for cost in Cost},
        reused=sum(r.reused_tokens for r in done) / prompt if prompt else 0.0,
        runs=mean(float(r.runs) for r in done) or 0.0,
        ece=sure.ece,
        brier=sure.brier,
        errors=sum(r.error is not None for r in done),
        stop_reasons={s: sum(r.stop_reason == s for r in done) for s in sorted({r.stop_reason for r in done})},
    )


def _pairs(rows: Sequence[Row], front: Sequence[str], results: Mapping[str, Sequence[TaskResult]]) -> tuple[Pair, ...]:
    wanted = {(a, b): "front" for a, b in pairwise(front)}
    plain = "tools" if any(r.strategy == "tools" for r in rows) else rows[0].strategy
    for budget in dict.fromkeys(r.budget for r in rows):
        same = {r.strategy: r.cell for r in rows if r.budget == budget}
        if plain in same:
            for strategy, cell in same.items():
                if strategy != plain and (cell, same[plain]) not in wanted:
                    wanted.setdefault((same[plain], cell), "same budget")
    counts = [_discordant(results[a], results[b]) for a, b in wanted]
    ps = [mcnemar_exact(*c) for c in counts]
    return tuple(
        Pair(
            why=why,
            first=a,
            second=b,
            difference=(more - less) / len(results[a]),
            by_video=_difference(results[a], results[b]),
            only_first=less,
            only_second=more,
            p=p,
            p_adjusted=adjusted,
        )
        for ((a, b), why), (less, more), p, adjusted in zip(wanted.items(), counts, ps, holm(ps), strict=True)
    )


def _discordant(first: Sequence[TaskResult], second: Sequence[TaskResult]) -> tuple[int, int]:
    both = list(zip(first, second, strict=True))
    return sum(a.right and not b.right for a, b in both), sum(b.right and not a.right for a, b in both)


def _difference(first: Sequence[TaskResult], second: Sequence[TaskResult]) -> tuple[float, float] | None:
    gains = [float(b.right) - float(a.right) for a, b in zip(first, second, strict=True)]
    return cluster_bootstrap(gains, [r.video for r in first])

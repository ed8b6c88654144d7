"""Compare: two runs over the same tasks, task by task, as before and after training.

Right answers by McNemar's exact test, and by a bootstrap over videos (questions about one video are not independent); what was
spent and looked at as means with the bootstrap interval of their difference. Only tasks that both runs answered count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.codec import from_plain
from ..core.errors import DataError
from .results import TaskResult
from .stats import cluster_bootstrap, mcnemar_exact

if TYPE_CHECKING:
    from rich.table import Table

Pairs = Sequence[tuple[TaskResult, TaskResult]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """Means of one figure over the tasks that have it in both runs; `interval` is of the difference after - before, by a
    bootstrap over videos (None for fewer than two)."""

    before: float
    after: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """`only_before` and `only_after` count the tasks that one run alone got right; `p` is McNemar's, two-sided."""

    tasks: int
    only_before: int
    only_after: int
    p: float
    changes: dict[str, Change]
    """By figure: right, frames, calls, sampled_tokens, spans_seen (share of the gold spans of which something was looked
    at), recall (share of the gold seconds looked at), cited_iou."""


FIGURES: dict[str, Callable[[TaskResult], float | None]] = {
    "right": lambda r: float(r.right),
    "frames": lambda r: float(r.frames),
    "calls": lambda r: float(r.calls),
    "sampled_tokens": lambda r: float(r.sampled_tokens),
    "spans_seen": lambda r: r.spans_seen,
    "recall": lambda r: r.recall,
    "cited_iou": lambda r: r.cited_iou,
}


def compare(before: Path, after: Path) -> Comparison:
    """Two folders of `playhead eval world`.

    Raises:
        DataError: a folder without results, or no task that both have.
    """
    first, second = ({r.task_id: r for r in read_results(folder)} for folder in (before, after))
    pairs = [(first[i], second[i]) for i in first if i in second]
    if not pairs:
        raise DataError(f"{before} and {after} have no task in common; compare runs over the same --data")
    only_before = sum(a.right and not b.right for a, b in pairs)
    only_after = sum(b.right and not a.right for a, b in pairs)
    changes = {name: made for name, of in FIGURES.items() if (made := _change(pairs, of)) is not None}
    p = mcnemar_exact(only_before, only_after)
    return Comparison(tasks=len(pairs), only_before=only_before, only_after=only_after, p=p, changes=changes)


def read_results(folder: Path) -> list[TaskResult]:
    """Raises: DataError: no results there, or a bad line, by its number."""
    path = folder / "results.jsonl"
    if not path.is_file():
        raise DataError(f"{folder}: no results.jsonl there; give a folder that `playhead eval world --out` wrote")
    results = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            results.append(from_plain(TaskResult, json.loads(line), f"{path}:{number}"))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON ({error})") from None
    return results


def _change(pairs: Pairs, of: Callable[[TaskResult], float | None]) -> Change | None:
    known = [(x, y, a.video) for a, b in pairs if (x := of(a)) is not None and (y := of(b)) is not None]
    if not known:
        return None
    n = len(known)
    interval = cluster_bootstrap([y - x for x, y, _ in known], [video for *_, video in known])
    return Change(before=sum(x for x, *_ in known) / n, after=sum(y for _, y, _ in known) / n, interval=interval)


def comparison_table(made: Comparison, before: str, after: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = f"{made.tasks} tasks: only before {made.only_before}, only after {made.only_after}, p = {made.p:.2g}"
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("")
    for name in (before, after, "difference, 95% by videos"):
        table.add_column(name, justify="right")
    for name, change in made.changes.items():
        low, high = change.interval or (float("nan"), float("nan"))
        difference = f"{change.after - change.before:+.3f}  ({low:+.3f} to {high:+.3f})"
        table.add_row(name, f"{change.before:.3f}", f"{change.after:.3f}", difference)
    return table

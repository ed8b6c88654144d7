"""The grid: every strategy under every budget on the same tasks, so that accuracy can be read against cost.

    playhead scale --data DIR --model M --strategies tools,direct,vote:n=8 --budgets frames=16,frames=64 --out RUN

Each cell (a strategy under a budget) is a run of `evals/world.py` in a folder of its own:

    RUN/<cell>/             manifest, results and trajectories, line by line
    RUN/results.json        what the grid came to (`bill.py`); without a time of day or a duration in it
    RUN/seconds.json        how long it took, which no two runs agree on

Kill it at any moment and start it again: it goes on with the questions that have no result. Each question has a seed of its
own and starts with empty caches, so `results.json` comes out as it would have without the interruption, as far as the
model's own arithmetic repeats itself: runs of one question that are under way at once share batches, whose float noise
could turn a near tie (`--concurrency 1` asks for one at a time). Cells may be added later: what is done stays done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import DataError
from ..core.nouns import Task
from ..core.whole import write_json
from .bill import Bill, make_bill, seconds_of
from .ledger import Ledger
from .manifest import IDENTITY, Limits, Setup, make_manifest, manifest_like
from .report import summarise
from .results import TaskResult
from .workers import run_jobs
from .world import chosen_tasks

if TYPE_CHECKING:
    from ..agent.scaling.strategy import Strategy

_SHORT = {"tool_calls": "calls", "context_tokens": "context", "sampled_tokens": "tokens", "wall_s": "seconds"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One strategy under one budget. `key` names it in results, `folder` on disk."""

    setup: Setup

    @property
    def strategy(self) -> str:
        return str(self.setup.plan)

    @property
    def budget(self) -> str:
        """As users write it: "frames=16"; empty where nothing is limited but by default."""
        limits = sorted(self.setup.limits.items())
        said = (("none" if v is None else str(v) if isinstance(v, int) else f"{v:g}") for _, v in limits)
        return ",".join(f"{_SHORT.get(name, name)}={value}" for (name, _), value in zip(limits, said, strict=True))

    @property
    def key(self) -> str:
        return f"{self.strategy} {self.budget}".strip()

    @property
    def folder(self) -> str:
        return re.sub(r"[^A-Za-z0-9=.]+", "-", self.key).strip("-.")


def cells_of(base: Setup, strategies: Sequence[str | Strategy], budgets: Sequence[Limits]) -> list[Cell]:
    """Every strategy under every budget, strategy by strategy.

    Raises:
        StrategyError: an unknown strategy.
        DataError: two cells are the same.
    """
    cells = [Cell(setup=replace(base, strategy=s, limits=dict(b))) for s in strategies for b in budgets or ({},)]
    for i, cell in enumerate(cells):
        if any(cell.folder == other.folder for other in cells[:i]):
            raise DataError(f"the grid has {cell.key!r} twice; name each strategy and each budget once")
    if not cells:
        raise DataError("the grid is empty; name at least one strategy")
    return cells


def run_grid(
    data: Path,
    out: Path,
    cells: Sequence[Cell],
    *,
    limit: int | None = None,
    workers: int = 1,
    on_result: Callable[[str, TaskResult, int, int], None] | None = None,
) -> tuple[Bill, dict[str, list[TaskResult]]]:
    """Ask what has not been asked yet; write `results.json` and `seconds.json`; return the bill and all results by cell.

    Args:
        limit: only the first so many tasks, spread over the kinds.
        workers: processes, each with a model of its own.
        on_result: called with each new result, its cell's key, how many are done in all cells, and how many there are.

    Raises:
        DataError: bad tasks, or `out` holds a grid of something else.
        ModelError: the model cannot be had.
    """
    tasks = chosen_tasks(data, limit, workers)
    with_tools = next((c.setup for c in cells if c.setup.plan.uses_tools), cells[0].setup)
    manifest = make_manifest(data, with_tools, limit)
    with ExitStack() as stack:
        ledgers = {c.key: stack.enter_context(_ledger(out, c, manifest)) for c in cells}
        wanted = {t.id for t in tasks}
        done = sum(len(wanted & led.results.keys()) for led in ledgers.values())

        def note(key: str, result: TaskResult, line: str | None) -> None:
            nonlocal done
            ledgers[key].add(result, line)
            done += 1
            if on_result is not None:
                on_result(key, result, done, len(tasks) * len(cells))

        run_jobs({c.key: c.setup for c in cells}, _to_do(cells, tasks, ledgers), workers, note)
        results = {c.key: [ledgers[c.key].results[t.id] for t in tasks] for c in cells}
        for cell in cells:
            ledger = ledgers[cell.key]
            ledger.write("summary.json", summarise(results[cell.key], manifest_like(manifest, cell.setup)))
        bill = make_bill(cells, results)
        write_json(out / "results.json", {**bill.plain(), "manifest": _common(manifest)})
        write_json(out / "seconds.json", seconds_of(results))
    return bill, results


def _ledger(out: Path, cell: Cell, manifest: Mapping[str, Any]) -> Ledger:
    return Ledger(out / cell.folder, manifest_like(manifest, cell.setup), IDENTITY)


def _to_do(cells: Sequence[Cell], tasks: Sequence[Task], ledgers: Mapping[str, Ledger]) -> list[tuple[str, Task]]:
    return [(c.key, t) for c in cells for t in tasks if t.id not in ledgers[c.key].results]


def _common(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What all cells have in common, and what does not depend on the machine's load or size."""
    return {name: value for name, value in manifest.items() if name not in ("strategy", "limits", "cores")}

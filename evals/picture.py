"""Pictures of a grid: accuracy against cost with the Pareto front drawn, and how far confidences can be believed.

Needs matplotlib, which is an extra: `pip install 'playhead[plots]'`. Colours are those of Okabe and Ito (2008), which people
with any kind of colour vision can tell apart; every strategy has a marker of its own besides.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..core.errors import DataError
from .bill import Bill, Row
from .calibration import Calibration
from .cost import Cost

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
MARKERS = "osD^vPXphd<>*8"
FRONT = "#444444"
SUFFIXES = (".png", ".svg", ".pdf")


def can_draw() -> bool:
    return find_spec("matplotlib") is not None


def draw_bill(bill: Bill, costs: Sequence[Cost], path: Path, title: str = "") -> None:
    """One panel per currency. The number at a point is what its budget allows.

    Raises:
        DataError: matplotlib is not installed, or the name ends in something that is no picture.
    """
    figure = _figure(path, (5.6 * len(costs), 4.7))
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    strategies = dict.fromkeys(r.strategy for r in bill.rows)
    styles = {s: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, s in enumerate(strategies)}
    handles: dict[str, Any] = {}
    panels = [(figure.add_subplot(1, len(costs), i), cost) for i, cost in enumerate(costs, 1)]
    for axes, cost in panels:
        handles |= _panel(axes, bill, cost, styles)
    panels[0][0].set_ylabel("right answers, %")
    _legend(figure, handles, len(costs), bill)
    figure.draw_without_rendering()  # settles the layout: what is measured from here on stands where it will stand
    for axes, cost in panels:
        _name_points(axes, bill, cost, styles)
    _save(figure, path)


def draw_reliability(named: Mapping[str, Calibration], path: Path) -> None:
    """A panel for each strategy: the share that is right against the confidence that was said, with 95% intervals; bars below
    show where the answers are.

    Raises:
        DataError: matplotlib is not installed, or the name ends in something that is no picture.
    """
    columns = min(4, max(1, len(named)))
    lines = math.ceil(len(named) / columns) or 1
    figure = _figure(path, (3.0 * columns + 0.4, 3.1 * lines + 0.3))
    for i, (name, made) in enumerate(named.items(), 1):
        axes = figure.add_subplot(lines, columns, i)
        _reliability(axes, name, made)
        if (i - 1) % columns == 0:
            axes.set_ylabel("right, %")
        if i > len(named) - columns:
            axes.set_xlabel("confidence, %")
    _save(figure, path)


def _figure(path: Path, size: tuple[float, float]) -> Any:
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: a picture's name ends in {', '.join(SUFFIXES)}")
    if not can_draw():
        raise DataError(
            f"{path}: pictures need matplotlib; pip install 'playhead[plots]' and run the same command again"
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # pyright: ignore[reportMissingImports]
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=size, dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # measures texts; no display, no state outside the figure
    return figure


def _save(figure: Any, path: Path) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the date: the same results give the same file.
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.suffix[1:])
    figure.savefig(beside, format=path.suffix[1:], metadata=undated)
    beside.replace(path)


def _panel(axes: Any, bill: Bill, cost: Cost, styles: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Points and front; returns what the legend shows."""
    handles: dict[str, Any] = {}
    _scale(axes, [r.at(cost) for r in bill.rows])
    front = [bill.row(c) for c in bill.fronts[cost.value]]
    (handles["Pareto front"],) = axes.step(
        [r.at(cost) for r in front],
        [100 * r.accuracy for r in front],
        where="post",
        color=FRONT,
        lw=1.2,
        ls="--",
        zorder=1,
    )
    for strategy, (colour, marker) in styles.items():
        rows = sorted((r for r in bill.rows if r.strategy == strategy), key=lambda r: r.at(cost))
        x, y = [r.at(cost) for r in rows], [100 * r.accuracy for r in rows]
        bars = [[100 * (r.accuracy - r.low) for r in rows], [100 * (r.high - r.accuracy) for r in rows]]
        axes.errorbar(x, y, bars, fmt="none", ecolor=colour, elinewidth=0.9, alpha=0.45, zorder=2)
        (handles[strategy],) = axes.plot(
            x, y, color=colour, marker=marker, ms=6.5, lw=0.8, alpha=0.95, mec="white", mew=0.7, zorder=3
        )
    axes.set_xlabel(cost.label)
    axes.grid(color="#DDDDDD", lw=0.6, zorder=0)
    axes.set_axisbelow(True)
    low, high = min(r.low for r in bill.rows), max(r.high for r in bill.rows)
    axes.set_ylim(100 * low - 3, 100 * high + 3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.margins(x=0.09)
    return handles


def _scale(axes: Any, costs: Sequence[float]) -> None:
    """Logarithmic where costs differ much."""
    if min(costs) <= 0 or max(costs) < 4 * min(costs):
        return
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    subs = (1, 2, 3, 4, 5, 7) if max(costs) < 12 * min(costs) else (1, 2, 5)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}" if v >= 1 else f"{v:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _name_points(axes: Any, bill: Bill, cost: Cost, styles: Mapping[str, tuple[str, str]]) -> None:
    """The budget beside each point, where there is room: a label that would cover another one or a point is moved, or left out
    (the front's come first, and are never left out)."""
    figure = axes.figure
    renderer, per_point = figure.canvas.get_renderer(), figure.dpi / 72
    at = {r.cell: axes.transData.transform((r.at(cost), 100 * r.accuracy)) for r in bill.rows}
    taken = [(x - 4 * per_point, y - 4 * per_point, x + 4 * per_point, y + 4 * per_point) for x, y in at.values()]
    front = set(bill.fronts[cost.value])
    for row in sorted(bill.rows, key=lambda r: r.cell not in front):
        words = _short(row, bill)
        if not words:
            continue
        colour = styles[row.strategy][0]
        label = axes.annotate(
            words,
            (row.at(cost), 100 * row.accuracy),
            (0, 0),
            textcoords="offset points",
            fontsize=7.5,
            color=colour,
            zorder=4,
        )
        for dx, dy, across, up in _PLACES:
            label.set_position((dx, dy))
            label.set_ha(across)
            label.set_va(up)
            box = label.get_window_extent(renderer)
            if not any(box.x0 < r and left < box.x1 and box.y0 < t and b < box.y1 for left, b, r, t in taken):
                taken.append((box.x0, box.y0, box.x1, box.y1))
                break
        else:
            if row.cell in front:
                label.set_position((6, 4))
            else:
                label.remove()


_PLACES = (
    *((6, 4, "left", "bottom"), (6, -4, "left", "top"), (-6, 4, "right", "bottom"), (-6, -4, "right", "top")),
    *((0, 8, "center", "bottom"), (0, -8, "center", "top"), (12, 12, "left", "bottom"), (-12, 12, "right", "bottom")),
    *((12, -12, "left", "top"), (-12, -12, "right", "top")),
)
"""Where a label may stand: offset in points, and which side of it is at the point."""


def _one_limit(bill: Bill) -> str | None:
    """What the budgets limit, where it is one thing."""
    names = {r.budget.partition("=")[0] for r in bill.rows if r.budget}
    return names.pop() if len(names) == 1 and not any("," in r.budget for r in bill.rows) else None


def _short(row: Row, bill: Bill) -> str:
    """The budget in as few characters as tell it from the others: its number alone where all budgets limit one thing."""
    return row.budget.partition("=")[2] if _one_limit(bill) else row.budget


def _legend(figure: Any, handles: Mapping[str, Any], panels: int, bill: Bill) -> None:
    longest = max(map(len, handles))
    columns = max(1, min(len(handles), int(panels * 88 / (longest + 6))))
    said = f"{bill.tasks} questions about {bill.videos} videos; bars: 95% intervals"
    if any(r.budget for r in bill.rows):
        said += f"; at points: {_one_limit(bill) or 'the limits'} allowed per question"
    legend = figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        frameon=False,
        title=said,
        title_fontsize=8,
    )
    legend.get_title().set_color("#444444")


def _reliability(axes: Any, name: str, made: Calibration) -> None:
    axes.plot([0, 100], [0, 100], color="#999999", lw=0.9, ls="--", zorder=1)
    if made.bins:
        most = max(b.n for b in made.bins)
        middle = [50 * (b.low + b.high) for b in made.bins]
        width = 92 * (made.bins[0].high - made.bins[0].low)
        axes.bar(middle, [22 * b.n / most for b in made.bins], width, color=COLOURS[5], alpha=0.5, zorder=1)
        x, y = [100 * b.confidence for b in made.bins], [100 * b.accuracy for b in made.bins]
        below = [100 * (b.accuracy - b.accuracy_low) for b in made.bins]
        above = [100 * (b.accuracy_high - b.accuracy) for b in made.bins]
        axes.errorbar(x, y, [below, above], fmt="o", ms=4.5, color=COLOURS[0], elinewidth=0.9, zorder=3)
    error = "no confidence" if made.ece is None else f"ECE {made.ece:.3f}, n {made.n}"
    axes.set_title(f"{name}\n{error}", fontsize=8)
    axes.set_xlim(-3, 103)
    axes.set_ylim(-3, 103)
    axes.set_xticks([0, 50, 100])
    axes.set_yticks([0, 50, 100])
    axes.tick_params(labelsize=8)
    axes.grid(color="#EEEEEE", lw=0.6, zorder=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

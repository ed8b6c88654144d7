"""Statement: the bill as people read it, a table in the terminal and a page of HTML that is one file and loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.whole import write_whole
from .bill import Bill, Pair, Row
from .cost import Cost

if TYPE_CHECKING:
    from rich.table import Table

_NOTE = (
    "Means per question. tokens: computed, prompt and sampled, from empty caches. 95%: Wilson. "
    "Front: * Pareto front of tokens, f of frames."
)


def bill_table(bill: Bill) -> Table:
    """A row for each cell."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    out = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in _HEAD:
        left = name in ("strategy", "budget", "front")
        out.add_column(name, justify="left" if left else "right", no_wrap=name != "strategy", overflow="fold")
    before = None
    for row in bill.rows:
        if before not in (None, row.strategy):
            out.add_section()
        before = row.strategy
        out.add_row(*_cells(row, bill), style="bold" if row.cell == bill.cheapest["tokens"] else None)
    out.caption = _NOTE
    return out


def pair_lines(bill: Bill) -> list[str]:
    """The paired tests, a line each."""
    return [_pair(p) for p in bill.pairs]


def verdict(bill: Bill, costs: Sequence[Cost]) -> list[str]:
    """Which cell is the best, and which is the cheapest of those that are as good to a point; a line for each currency."""
    best = bill.row(bill.best)
    lines = [f"best: {best.cell}, {_share(best)} right ({best.right} of {best.tasks}; {bill.videos} videos)"]
    for cost in costs:
        row = bill.row(bill.cheapest[cost.value])
        lines.append(
            f"cheapest within 1 point of it, by {cost.value}: {row.cell}, {_share(row)} right at "
            f"{_number(row.at(cost))} {cost.label}"
        )
    return lines


def page(bill: Bill, costs: Sequence[Cost], pictures: Sequence[Path], title: str) -> str:
    """The bill as one HTML file, with its pictures (PNG) inside."""
    inside = [(p.stem, base64.b64encode(p.read_bytes()).decode()) for p in pictures]
    images = "".join(f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">' for name, data in inside)
    head = "".join(f"<th>{escape(name)}</th>" for name in _HEAD)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in _cells(r, bill))}</tr>" for r in bill.rows)
    said = "".join(f"<p>{escape(line)}</p>" for line in verdict(bill, costs))
    pairs = "".join(f"<li>{escape(line)}</li>" for line in pair_lines(bill))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f"<h1>{escape(title)}</h1>{said}{images}<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"<p>{escape(_NOTE)}</p><h2>Paired tests</h2><ul>{pairs}</ul></html>\n"
    )


def write_page(path: Path, text: str) -> None:
    """Write the page whole (beside, then renamed)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


_HEAD = ("strategy", "budget", "right", "95%", "tokens", "frames", "sampled", "calls", "secs", "front")


def _cells(row: Row, bill: Bill) -> list[str]:
    marks = ("*" if row.cell in bill.fronts["tokens"] else "") + ("f" if row.cell in bill.fronts["frames"] else "")
    costs = (Cost.TOKENS, Cost.FRAMES, Cost.SAMPLED, Cost.CALLS, Cost.SECONDS)
    interval = f"{100 * row.low:.0f}-{100 * row.high:.0f}"
    return [row.strategy, row.budget, _share(row), interval, *(_number(row.at(c)) for c in costs), marks]


def _pair(pair: Pair) -> str:
    between = (
        "" if pair.by_video is None else f" ({100 * pair.by_video[0]:+.1f} to {100 * pair.by_video[1]:+.1f} by video)"
    )
    return (
        f"{pair.second} against {pair.first}: {100 * pair.difference:+.1f} points{between}, right alone "
        f"{pair.only_second} to {pair.only_first}, p {_p(pair.p)}, of all pairs {_p(pair.p_adjusted)} [{pair.why}]"
    )


def _share(row: Row) -> str:
    return f"{100 * row.accuracy:.1f}%"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#111;background:#fff}"
    "img{max-width:100%;display:block;margin:1rem 0}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{padding:.2rem .6rem;border-bottom:1px solid #ddd;text-align:right}"
    "th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}"
)

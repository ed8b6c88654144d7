"""Report: the results of a run in one dictionary (`summary.json`) and one table.

`accuracy` is the mean of right or wrong over all tasks; a "when" is right from a temporal IoU of 0.5 on. Intervals are
95% Wilson intervals. Three figures tell whether the model looked where the answer lies: `looked_at`, the share of tasks of
which every gold span (each event that the answer rests on) had a frame shown to the model; `any_gold_seen`, the share where
one had; `gold_recall`, the mean share of the gold seconds that tools showed (one frame of a five-second event is 0.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .results import TaskResult
from .stats import mean, share, wilson

if TYPE_CHECKING:
    from rich.table import Table

_COSTS = ("turns", "calls", "frames", "context_tokens", "sampled_tokens", "prefill_tokens", "reused_tokens", "wall_s")


def summarise(results: Sequence[TaskResult], manifest: dict[str, Any]) -> dict[str, Any]:
    """Everything a reader asks of a run; `accuracy` stands at the top level."""
    kinds = list(dict.fromkeys(r.kind for r in results))
    calls, malformed = sum(r.calls for r in results), sum(r.malformed for r in results)
    return {
        **_shares(results),
        "kinds": {kind: _shares([r for r in results if r.kind == kind]) for kind in kinds},
        "calls": calls,
        "malformed_calls": malformed,
        "malformed_share": malformed / calls if calls else None,
        "errors": sum(r.error is not None for r in results),
        "stop_reasons": {s: sum(r.stop_reason == s for r in results) for s in sorted({r.stop_reason for r in results})},
        "mean_cost": {name: mean(float(getattr(r, name)) for r in results) for name in _COSTS},
        "max_wall_s": max((r.wall_s for r in results), default=0.0),
        "manifest": manifest,
    }


def _shares(results: Sequence[TaskResult]) -> dict[str, Any]:
    n, right = len(results), sum(r.right for r in results)
    seen = [r.spans_seen for r in results if r.spans_seen is not None]
    return {
        "accuracy": right / n if n else None,
        "tasks": n,
        "right": right,
        "interval": list(wilson(right, n)),
        "when_iou": mean(r.score for r in results if r.kind == "when"),
        "cited_iou": mean(r.cited_iou for r in results),
        "looked_at": share(s == 1.0 for s in seen),
        "any_gold_seen": share(s > 0 for s in seen),
        "gold_recall": mean(r.recall for r in results),
    }


def table(summary: dict[str, Any], results: Iterable[TaskResult]) -> Table:
    """The table that the command prints, at most 80 columns wide: a row for each kind, then all."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    manifest = summary["manifest"]
    title = f"{manifest.get('model')} · {manifest.get('strategy')}"
    out = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in ("kind", "tasks", "right", "95%", "IoU", "recall", "looked", "frames", "calls", "secs"):
        out.add_column(name, justify="left" if name == "kind" else "right", no_wrap=True)
    done = list(results)
    for kind in summary["kinds"]:
        out.add_row(*_row(kind, summary["kinds"][kind], [r for r in done if r.kind == kind]))
    out.add_section()
    out.add_row(*_row("all", summary, done), style="bold")
    out.caption = (
        f"{_malformed(summary)} · "
        f"any gold span seen in {_percent(summary['any_gold_seen'])} · errors {summary['errors']}"
    )
    return out


def _malformed(summary: dict[str, Any]) -> str:
    count, share_ = summary["malformed_calls"], summary["malformed_share"]
    if share_ is None:  # no tools: what is malformed is a turn without an answer
        return f"turns without an answer {count}"
    return f"malformed calls {count} of {summary['calls']} ({share_:.2%})"


def _row(kind: str, part: dict[str, Any], results: Sequence[TaskResult]) -> list[str]:
    low, high = part["interval"]
    iou = part["when_iou"] if kind == "when" else None
    costs = [mean(float(getattr(r, name)) for r in results) or 0.0 for name in ("frames", "calls", "wall_s")]
    return [
        kind,
        str(part["tasks"]),
        _percent(part["accuracy"]),
        f"{low * 100:.0f}-{high:.0%}",
        "" if iou is None else f"{iou:.2f}",
        "" if part["gold_recall"] is None else f"{part['gold_recall']:.2f}",
        _percent(part["looked_at"]),
        *(f"{c:.1f}" for c in costs),
    ]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"

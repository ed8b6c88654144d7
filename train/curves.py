"""Curves of a run: curve.jsonl, a line for each thing that was logged, and curve.png, what of it a person looks at first.

The picture needs matplotlib (`pip install 'playhead[plots]'`); without it the numbers are written all the same.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_LOG = logging.getLogger("playhead")
PANELS = (
    ("loss", (("loss", "training"), ("eval_loss", "held out"))),
    ("nats per token", (("nll", "training"), ("eval_nll", "held out"))),
    ("share of tokens right", (("token_accuracy", "training"), ("eval_token_accuracy", "held out"))),
    ("agent", (("eval_agent_accuracy", "right"), ("eval_agent_answered", "answered"))),
)
"""(title, (name in the log, label) of each line); a panel without a number is left out."""


def save_curves(history: Sequence[Mapping[str, Any]], out: Path, panels: Sequence[Any] = PANELS) -> None:
    """Write both files into `out` (beside, then renamed). `history` is a trainer's log: dicts with "step"."""
    text = "".join(json.dumps(dict(entry)) + "\n" for entry in history)
    _replace(out / "curve.jsonl", lambda beside: beside.write_text(text, encoding="utf-8"))
    if find_spec("matplotlib") is None:
        _LOG.warning("no curve.png: it needs matplotlib (pip install 'playhead[plots]'); the numbers are in curve.jsonl")
        return
    _replace(out / "curve.png", lambda beside: _draw(history, beside, panels))


def points(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """(step, value) of every entry that has `name`; of several at one step the last."""
    found = {int(e["step"]): float(e[name]) for e in history if name in e and "step" in e}
    return sorted(found.items())


def _draw(history: Sequence[Mapping[str, Any]], path: Path, panels: Sequence[Any]) -> None:
    # The figure alone: no backend, no display. An extra, so it may be missing where types are checked.
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    shown = [(title, [(points(history, n), label) for n, label in lines]) for title, lines in panels]
    shown = [(title, [line for line in lines if line[0]]) for title, lines in shown]
    shown = [(title, lines) for title, lines in shown if lines]
    figure = Figure(figsize=(4.2 * max(1, len(shown)), 3.2), layout="constrained")
    for i, (title, lines) in enumerate(shown, 1):
        axes = figure.add_subplot(1, len(shown), i)
        for line, label in lines:
            steps, values = zip(*line, strict=True)
            axes.plot(steps, values, label=label, marker="o" if len(line) < 20 else None, markersize=3)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=120, format="png")


def _replace(path: Path, write: Any) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    write(beside)
    beside.replace(path)

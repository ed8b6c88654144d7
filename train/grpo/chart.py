"""The picture of a run: small curves of its figures over the steps, drawn with Pillow. Dots are
steps, the line is their running mean."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PANELS: tuple[tuple[str, str], ...] = (
    ("reward", "reward"),
    ("right", "right answers (share)"),
    ("frames", "frames a rollout"),
    ("calls", "tool calls a rollout"),
    ("evidence", "gold seconds looked at (share)"),
    ("answered", "ended in an own answer (share)"),
    ("entropy", "entropy (nats a token)"),
    ("kl", "KL to the first policy"),
    ("logprob_gap/max", "sampler - trainer log-prob, largest"),
    ("groups/without_signal", "groups without signal"),
    ("tokens/sampled", "sampled tokens a rollout"),
    ("step_time", "seconds a step"),
)
"""(figure, title). Those that a run does not have are left out."""
WIDTH, HEIGHT, COLUMNS, MARGIN = 320, 170, 3, 34
INK, DOT, LINE = (40, 40, 40), (190, 190, 190), (200, 60, 30)


def draw_run(path: Path, steps: Sequence[Mapping[str, float]]) -> None:
    """Write the picture of `steps` (each with "step" and figures); nothing where there are none."""
    from PIL import Image, ImageDraw

    panels = [(name, title) for name, title in PANELS if sum(name in s for s in steps) > 1]
    if not panels:
        return
    rows = math.ceil(len(panels) / COLUMNS)
    image = Image.new("RGB", (WIDTH * COLUMNS, HEIGHT * rows), "white")
    pen = ImageDraw.Draw(image)
    for i, (name, title) in enumerate(panels):
        points = [(s["step"], s[name]) for s in steps if name in s and math.isfinite(s[name])]
        if points:
            _panel(pen, i % COLUMNS * WIDTH, i // COLUMNS * HEIGHT, title, points)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    image.save(beside, format="PNG")
    beside.replace(path)


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Of the last `window` values at each place."""
    return [math.fsum(values[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(values))]


def _panel(pen: Any, left: int, top: int, title: str, points: Sequence[tuple[float, float]]) -> None:
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low, high = min(ys), max(ys)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    x0, y0, x1, y1 = left + MARGIN + 14, top + 24, left + WIDTH - 12, top + HEIGHT - 22

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / max(1e-9, xs[-1] - xs[0])
        return x0 + across * (x1 - x0), y1 - (y - low) / (high - low) * (y1 - y0)

    pen.text((x0, top + 6), title, fill=INK)
    pen.line([(x0, y0), (x0, y1), (x1, y1)], fill=DOT)
    for value in (low, high):
        pen.text((left + 4, at(xs[0], value)[1] - 6), f"{value:.3g}", fill=INK)
    pen.text((x1 - 24, y1 + 4), f"{xs[-1]:.0f}", fill=INK)
    for x, y in points:
        px, py = at(x, y)
        pen.ellipse([px - 1.5, py - 1.5, px + 1.5, py + 1.5], fill=DOT)
    smooth = running_mean(ys, max(1, len(ys) // 10))
    if len(points) > 1:
        pen.line([at(x, y) for x, y in zip(xs, smooth, strict=True)], fill=LINE, width=2)

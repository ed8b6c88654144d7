"""Records: what a run leaves in its folder while it trains.

    metrics.jsonl              a line per step
    run.png                    the same as a picture
    trajectories/step-N.jsonl  episodes of that step, scored:  playhead view OUT/trajectories/step-00010.jsonl
    failures.jsonl             rollouts that gave nothing, and why
    checkpoint-N/              TRL's own, a model like any other; grpo_state.json is written last: one without it was cut off

Written by the first process, beside and renamed, or line by line. Lines past the step that a run is resumed from are
dropped, so the files tell of one run.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...core.errors import DataError
from ...core.trajectory import write_trajectories
from ...core.whole import write_whole
from .chart import draw_run
from .collect import Round
from .crew import Crew
from .plan import Plan

STATE_FILE = "grpo_state.json"


class Records:
    """Args: out is the run's folder."""

    def __init__(self, out: Path, plan: Plan, crew: Crew) -> None:
        self.out, self._plan, self._writes = out, plan, crew.rank == 0
        self.steps: list[dict[str, float]] = []

    def begin(self, step: int) -> None:
        """A run that starts at `step`: what was written of later steps is dropped."""
        if not self._writes:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        self.steps = [line for line in _read_lines(self.out / "metrics.jsonl") if line["step"] <= step]
        _write_lines(self.out / "metrics.jsonl", self.steps)
        failures = self.out / "failures.jsonl"
        _write_lines(failures, [line for line in _read_lines(failures) if line["step"] <= step])

    def rollouts(self, step: int, found: Round) -> None:
        """Keep some of the trajectories of a step, and all its failures."""
        if not self._writes:
            return
        if found.failures:
            with (self.out / "failures.jsonl").open("a", encoding="utf-8") as file:
                for f in found.failures:
                    line = {"step": step, "rollout": f.rollout_id, "task": f.task_id, "error": f.error}
                    file.write(json.dumps(line) + "\n")
        if step == 1 or step % self._plan.sample_every == 0:
            folder = self.out / "trajectories"
            folder.mkdir(parents=True, exist_ok=True)
            write_trajectories(folder / f"step-{step:05d}.jsonl", found.trajectories[: self._plan.samples])

    def log(self, step: int, logs: dict[str, Any]) -> None:
        """One line of figures; the picture is drawn again."""
        figures = {k: float(v) for k, v in logs.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
        if not self._writes or "grad_norm" not in figures:  # the summary at the end is no step
            return
        if "step_time" in figures:
            figures["seconds/training"] = max(0.0, figures["step_time"] - figures.get("seconds/rollout", 0.0))
        line = {"step": step, **{k: v for k, v in sorted(figures.items()) if k != "step"}}
        self.steps.append(line)
        with (self.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        draw_run(self.out / "run.png", self.steps)


def last_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint of a run's folder."""
    whole = [p.parent for p in out.glob(f"checkpoint-*/{STATE_FILE}") if p.parent.name.split("-")[-1].isdigit()]
    return max(whole, key=lambda p: int(p.name.split("-")[-1]), default=None)


def write_state(folder: Path, state: dict[str, Any]) -> None:
    beside = folder / f".{STATE_FILE}.{os.getpid()}.part"
    beside.write_text(json.dumps(state) + "\n", encoding="utf-8")
    beside.replace(folder / STATE_FILE)


def read_state(folder: Path) -> dict[str, Any]:
    """Raises: DataError: no such checkpoint, or one that was cut off."""
    path = folder / STATE_FILE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        guards = dict(state.get("guards", {}))
        return {"step": int(state["step"]), "curriculum": dict(state["curriculum"]), "guards": guards}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: no whole checkpoint of a GRPO run ({type(error).__name__}: {error})") from None


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # the last line of a killed run
            continue
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), (int, float))]


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    write_whole(path, "".join(json.dumps(line) + "\n" for line in lines))

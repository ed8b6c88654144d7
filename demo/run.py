"""The demo: a 20-minute film nobody has seen, four questions of different kinds, every step as it happens, and a page.

    playhead demo                    # or: make demo

Nothing is staged: the film is made from a seed, the agent is the one that `playhead ask` runs, and the truth is shown
beside each answer, right or wrong.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import DataError
from ..core.nouns import Task
from ..core.scoring import is_right
from ..core.tasks import read_tasks
from ..core.trajectory import Trajectory, write_trajectories
from .live import show, spans
from .page import build_page
from .thumbs import thumbnails

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ..agent.policies.loading import LoadOptions
    from ..agent.video_agent import VideoAgent

KINDS = ("attribute", "motion", "when", "count")
SEED = 5_000_000
"""A film of the demo's own: no stage of training draws seeds near it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What the demo came to."""

    trajectories: tuple[Trajectory, ...]
    page: Path
    right: int


async def run_demo(
    out: Path,
    console: Console,
    *,
    minutes: float = 20.0,
    seed: int = SEED,
    model: str = "embedded",
    load: LoadOptions | None = None,
) -> Outcome:
    """Make the film, ask the questions, write `out/page.html` and `out/trajectories.jsonl`.

    Raises:
        PlayheadError: the film cannot be written or the model cannot be had.
    """
    from ..agent.video_agent import VideoAgent

    tasks = pick(make_film(out, console, minutes, seed))
    agent = VideoAgent(model, load=load)
    trajectories = []
    for number, task in enumerate(tasks, 1):
        console.print()
        console.rule(f"[bold]question {number} of {len(tasks)}[/bold] ({task.kind})", align="left")
        console.print(task.question, style="bold", markup=False)
        if task.choices:
            console.print(f"options: {', '.join(task.choices)}", markup=False)
        trajectory = await ask_live(agent, task, console)
        tell_truth(trajectory, console)
        trajectories.append(trajectory)
    write_trajectories(out / "trajectories.jsonl", trajectories)
    page = write_page(trajectories, out / "page.html")
    right = sum(is_right(t.task, t.answer) for t in trajectories)
    return Outcome(trajectories=tuple(trajectories), page=page, right=right)


def make_film(out: Path, console: Console, minutes: float, seed: int) -> list[Task]:
    """The tasks of one film of the world under `out`, made now or kept from before."""
    from ..world.make import make_world

    began = time.monotonic()
    with _bar(console) as bar:
        row = bar.add_task(f"filming {minutes:g} minutes", total=1.0)
        try:
            make_world(out, 1, minutes, seed, progress=lambda share, _: bar.update(row, completed=share))
        except ValueError as error:
            raise DataError(str(error)) from None
    tasks = read_tasks(out)
    film = Path(tasks[0].video)
    size = film.stat().st_size / 1e6
    console.print(
        f"film    {film} ({minutes:g} minutes, {size:.1f} MB, {time.monotonic() - began:.1f} s)", markup=False, soft_wrap=True
    )
    return tasks


def pick(tasks: Sequence[Task], kinds: Sequence[str] = KINDS, n: int = 4) -> list[Task]:
    """`n` tasks of different kinds: those of `kinds` first, others where the film lacks one."""
    by_kind = {task.kind: task for task in reversed(tasks)}
    order = [*kinds, *(k for k in by_kind if k not in kinds)]
    return [by_kind[k] for k in order if k in by_kind][:n]


async def ask_live(agent: VideoAgent, task: Task, console: Console) -> Trajectory:
    """Run one task and print its steps as they happen."""
    from ..agent.events import Finished, Indexing

    trajectory = None
    with _bar(console) as bar:
        row = bar.add_task("  indexing", total=1.0, visible=False)
        async for event in agent.astream(task.video, task.question, task.choices):
            if isinstance(event, Indexing):
                bar.update(row, completed=event.share, visible=event.share < 1)
            elif isinstance(event, Finished):
                # The agent knows nothing of the truth; the record of the demo does.
                trajectory = replace(event.trajectory, task=task)
            else:
                show(event, bar.console)
    assert trajectory is not None, "an episode ends with Finished"
    return trajectory


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def tell_truth(trajectory: Trajectory, console: Console) -> None:
    """The truth beside the answer, and what the episode cost."""
    from rich.text import Text

    task, usage = trajectory.task, trajectory.usage
    good = is_right(task, trajectory.answer)
    verdict = ("right", "bold green") if good else ("wrong", "bold red")
    truth = "" if task.kind == "when" else f"{task.answer}  "
    line = Text.assemble(("  truth  ", "bold"), f"{truth}evidence {spans(task.evidence)} s  ", verdict)
    console.print(line, soft_wrap=True)
    if trajectory.error:
        console.print(f"  error  {trajectory.error}", markup=False, soft_wrap=True, style="red")
    cost = f"{usage.turns} turns, {usage.tool_calls} calls, {usage.frames} frames, {usage.wall_s:.1f} s"
    console.print(f"  cost   {cost}", style="dim", markup=False)


def write_page(trajectories: Sequence[Trajectory], path: Path, folder: Path | None = None) -> Path:
    """The page of these episodes at `path` (beside, then renamed); videos that are relative count from `folder`.

    Raises:
        DataError: it cannot be written there.
    """
    thumbs, problems = thumbnails(trajectories, folder)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(build_page(trajectories, thumbs, problems), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise DataError(f"{path}: the page cannot be written ({error.strerror or error})") from None
    return path

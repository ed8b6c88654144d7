"""`playhead rewards explain`: what a rubric pays for an episode, part by part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import VideoError
from .options import UsageProblem, console, say

if TYPE_CHECKING:
    from rich.table import Table

    from ..core.trajectory import Trajectory
    from ..train.rewards import Part, RewardContext, Rubric


def explain(
    trajectories: Annotated[Path, typer.Argument(help="A file of trajectories.", metavar="TRAJECTORIES.jsonl")],
    rubric: Annotated[
        str, typer.Option(help="world, text, answer, longvt, time_r1, video_r1, timesearch or open_o3.")
    ] = "world",
    only: Annotated[str | None, typer.Option("--id", help="Only the episode, or the task, of this id.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many episodes.", min=1)] = 20,
    progress: Annotated[float, typer.Option(help="How far training is: some rewards tighten.", min=0, max=1)] = 1.0,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object for each episode.")] = False,
) -> None:
    """Print what each reward gives an episode, what it weighs, and their sum; over several episodes, the means too.

    A reward that needs what no recorded episode holds (rollouts on shuffled frames, a verdict) is told with what it lacks,
    and left out. Rewards read the environment's log and the tokens, so a made-up tool response earns nothing. What each
    one means, with formula and source: docs/rewards.md.

    Examples:

        playhead rewards explain runs/tools/trajectories.jsonl
        playhead rewards explain runs/tools/trajectories.jsonl --rubric longvt --id world-6500000-motion
        playhead rewards explain runs/tools/trajectories.jsonl --limit 1000 --json > rewards.jsonl
    """
    import json
    from itertools import islice

    from ..core.trajectory import read_trajectories
    from ..train.rewards import RUBRICS

    if rubric not in RUBRICS:
        raise UsageProblem(f"--rubric {rubric!r}: take one of {', '.join(RUBRICS)}")
    chosen = RUBRICS[rubric]()
    found = (t for t in read_trajectories(trajectories) if only is None or only in (t.id, t.task.id))
    shown = list(islice(found, limit))
    if not shown:
        raise UsageProblem(f"{trajectories}: no episode" + (f" of id {only!r}" if only else ""))
    durations: dict[str, float | None] = {}
    explained: list[tuple[Trajectory, tuple[Part, ...] | None]] = []
    for trajectory in shown:
        context = _context(trajectory, progress, durations)
        explained.append((trajectory, _parts(chosen, trajectory, context)))
    if json_output:
        for trajectory, parts in explained:
            typer.echo(json.dumps(_plain(chosen, trajectory, parts)))
        return
    said = console()
    for trajectory, parts in explained:
        say(_head(trajectory))
        said.print(_table(parts) if parts else "  unscored: it ended in an error\n")
    if len(explained) > 1:
        said.print(_means([parts for _, parts in explained if parts]))


def _context(trajectory: Trajectory, progress: float, durations: dict[str, float | None]) -> RewardContext:
    """With the duration of the video, where that can still be read."""
    from ..core.video import Video
    from ..train.rewards import RewardContext

    path = trajectory.task.video
    if path not in durations:
        try:
            durations[path] = Video.open(path).duration_s
        except VideoError:
            durations[path] = None
    return RewardContext(duration_s=durations[path], progress=progress)


def _parts(rubric: Rubric, trajectory: Trajectory, context: RewardContext) -> tuple[Part, ...] | None:
    if trajectory.error is not None or trajectory.stop_reason.is_error:
        return None
    return rubric.explain_known(trajectory, context)


def _plain(rubric: Rubric, trajectory: Trajectory, parts: tuple[Part, ...] | None) -> dict[str, Any]:
    return {
        "id": trajectory.id,
        "task": trajectory.task.id,
        "rubric": rubric.name,
        "reward": None if parts is None else sum(p.weighted for p in parts),
        "parts": None if parts is None else {p.name: None if p.lacks else p.weighted for p in parts},
        "values": None if parts is None else {p.name: None if p.lacks else p.value for p in parts},
        "lacks": {} if parts is None else {p.name: p.lacks for p in parts if p.lacks},
    }


def _head(trajectory: Trajectory) -> str:
    task, answer = trajectory.task, trajectory.answer
    said = "no answer" if answer is None else f"said {answer.text!r}"
    return f"{trajectory.id}  {task.question}  ({said}, gold {task.answer!r}, {trajectory.stop_reason.value})"


def _table(parts: tuple[Part, ...]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table("part", "value", "weight", "counts", "what it is", box=box.SIMPLE)
    for part in parts:
        known = ("-", f"{part.weight:g}", "-", f"not known: {part.lacks}")
        if part.lacks is None:
            known = (f"{part.value:.3f}", f"{part.weight:g}", f"{part.weighted:+.3f}", part.means)
        table.add_row(part.name, *known)
    table.add_row("reward", "", "", f"{sum(p.weighted for p in parts):+.3f}", "", style="bold")
    return table


def _means(explained: list[tuple[Part, ...]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table("part", "mean", "least", "most", box=box.SIMPLE, title=f"{len(explained)} episodes")
    for column in zip(*explained, strict=True):
        counts = [part.weighted for part in column]
        table.add_row(column[0].name, *(f"{x:+.3f}" for x in (sum(counts) / len(counts), min(counts), max(counts))))
    totals = [sum(p.weighted for p in parts) for parts in explained]
    if totals:
        row = (sum(totals) / len(totals), min(totals), max(totals))
        table.add_row("reward", *(f"{x:+.3f}" for x in row), style="bold")
    return table

"""`playhead world make`: films with known answers, and their tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import UsageProblem, aside, progress_bar, say


def make(
    out: Annotated[Path, typer.Option(help="The folder to write: DIR/videos/*.mp4 and DIR/tasks.jsonl.")],
    videos: Annotated[int, typer.Option(help="How many videos.", min=1)] = 4,
    minutes: Annotated[str, typer.Option(help="Minutes of each video; several (10,20,30) are taken in turn.")] = "20",
    seed: Annotated[int, typer.Option(help="The world seed of the first video; the next ones count up.", min=0)] = 0,
    kinds: Annotated[str, typer.Option(help="Kinds of questions: seven, all (ten), or names separated by commas.")] = "seven",
    draws: Annotated[
        int, typer.Option(help="Questions of each kind and video, at most: none asks about the same moments again.", min=1)
    ] = 1,
    haze: Annotated[
        float, typer.Option(help="How faint objects are: the share of them that the background takes, 0 to below 1.")
    ] = 0.0,
) -> None:
    """Make long videos whose answers are known by construction, with questions of seven kinds (or ten).

    Events are rare and short: a shape of some colour crosses the screen for a few seconds, perhaps with a digit on it.
    Distractors share its colour or its shape. Each video gets a question of each kind: attribute, motion, first, count,
    when, after, digit. A video that is there already is kept, so a run that was stopped goes on.

    Examples:

        playhead world make --out world --videos 4 --minutes 20 --seed 1
        playhead world make --out world --videos 40 --minutes 10,14,20,30,12 --seed 6500000
        playhead world make --out rich --videos 8 --kinds where,subtitle,small
        playhead world make --out small --videos 88 --minutes 10 --kinds small --draws 9
        playhead world make --out hazy --videos 43 --minutes 7,8,9 --haze 0.4
        playhead eval world --data world --out runs/first

    `subtitle` and `small` are asked of films that carry subtitles and small digits; the others' questions stay as they are.
    With `--haze` films have the same events, questions and answers, and are harder to see.
    """
    from ..core.tasks import read_tasks
    from ..world.make import make_world
    from ..world.questions import parse_kinds

    if out.exists() and not out.is_dir():
        raise UsageProblem(f"--out {out}: not a folder")
    lengths = _lengths(minutes)
    with progress_bar(aside()) as bar:
        row = bar.add_task("filming", total=1.0)
        try:
            path = make_world(
                out,
                videos,
                lengths,
                seed,
                draws=draws,
                kinds=parse_kinds(kinds),
                repeats=False,
                haze=haze,
                progress=lambda share, name: bar.update(row, completed=share, description=f"filming {name}"),
            )
        except (ValueError, OSError) as error:
            raise UsageProblem(f"the world cannot be made: {error}") from None
    tasks = read_tasks(out)
    asked = ", ".join(f"{sum(t.kind == k for t in tasks)} {k}" for k in dict.fromkeys(t.kind for t in tasks))
    say(f"{path}: {len(tasks)} tasks about {len({t.video for t in tasks})} videos ({asked})")


def _lengths(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageProblem(f"--minutes {text!r}: write a number of minutes, or several separated by commas") from None

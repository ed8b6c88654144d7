"""`playhead view` and `playhead demo`: episodes to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    Adapter,
    Attention,
    CacheGb,
    DeviceMap,
    Dtype,
    FourBit,
    Model,
    UsageProblem,
    console,
    parse_load,
    quiet_loading,
    say,
)


def view(
    trajectories: Annotated[Path, typer.Argument(help="A file of trajectories.", metavar="TRAJECTORIES.jsonl")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("page.html"),
    limit: Annotated[int, typer.Option(help="At most so many episodes.", min=1)] = 50,
    only: Annotated[str | None, typer.Option(help="Only the right or the wrong ones: right, wrong.")] = None,
) -> None:
    """Turn episodes into one HTML page: the timeline, what was looked at when, the frames, the thoughts, the answers.

    The page is one file and loads nothing. Frames are read again from the videos, where those are still there.

    Examples:

        playhead view runs/tools/trajectories.jsonl --out page.html
        playhead view runs/tools/trajectories.jsonl --only wrong --limit 20
    """
    from itertools import islice

    from ..core.scoring import is_right
    from ..core.trajectory import read_trajectories
    from ..demo.page import is_known
    from ..demo.run import write_page

    if only not in (None, "right", "wrong"):
        raise UsageProblem(f"--only {only!r}: take right or wrong")
    chosen = (
        t
        for t in read_trajectories(trajectories)
        if only is None or (is_known(t.task) and is_right(t.task, t.answer) == (only == "right"))
    )
    shown = list(islice(chosen, limit))
    path = write_page(shown, out, trajectories.parent)
    say(f"{path}: {len(shown)} episodes, {path.stat().st_size / 1e6:.1f} MB")


def demo(
    out: Annotated[Path, typer.Option(help="Where the film, the trajectories and the page go.")] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option(help="How long the film is.")] = 20.0,
    seed: Annotated[int | None, typer.Option(help="Another seed is another film.", min=0)] = None,
    model: Model = "embedded",
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    attention: Attention = None,
    four_bit: FourBit = False,
    adapter: Adapter = None,
    cache_gb: CacheGb = None,
) -> None:
    """Make a long film, ask it four questions, print every step, and write a page to look at.

    Needs no download and no GPU: the embedded model is in the package. The truth stands beside each answer.

    Examples:

        playhead demo
        playhead demo --seed 12 --minutes 60 --out runs/hour
    """
    import asyncio

    from ..demo.run import SEED, run_demo

    load = parse_load(
        model, dtype=dtype, device_map=device_map, attention=attention, four_bit=four_bit, adapter=adapter, cache_gb=cache_gb
    )
    said = console()
    quiet_loading(model)
    seed = SEED if seed is None else seed
    outcome = asyncio.run(run_demo(out, said, minutes=minutes, seed=seed, model=model, load=load))
    said.print()
    say(f"{outcome.right} of {len(outcome.trajectories)} right · page: {outcome.page}", style="bold")

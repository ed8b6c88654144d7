"""`playhead collect`: trajectories to learn from, by any policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    Adapter,
    Attention,
    DeviceMap,
    Dtype,
    FourBit,
    aside,
    console,
    parse_budget,
    parse_load,
    progress_bar,
    quiet_loading,
)

_ORACLE = "The oracle (--model oracle)"


def collect(
    data: Annotated[Path, typer.Option(help="A folder of `playhead world make`, or any tasks.jsonl.")],
    out: Annotated[Path, typer.Option(help="The folder of the set; the same command goes on with it.")],
    model: Annotated[
        str,
        typer.Option(help="oracle (for tasks of the world), embedded, a folder or hub id, or http://HOST:PORT/v1#NAME."),
    ] = "embedded",
    strategy: Annotated[str, typer.Option(help="tools, or direct (N uniform frames, no tools).")] = "tools",
    frames: Annotated[int | None, typer.Option(help="Uniform frames of direct.", min=1)] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Episodes of each task.", min=1)] = 1,
    keep: Annotated[
        str | None,
        typer.Option(
            help="Filters, in order: correct[=IOU], grounded[=SHARE], format, budget[=frames:32+turns:4], "
            "agreement[=SHARE], difficulty[=LOW-HIGH], verified.",
            metavar="FILTERS",
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 takes the likeliest token; 1 with --n over 1, else 0.", min=0.0)
    ] = None,
    rubric: Annotated[str, typer.Option(help="What trajectories are scored by.")] = "world",
    verifier: Annotated[
        str | None, typer.Option(help="Another model for the filter `verified`; else the one that played.", metavar="MODEL")
    ] = None,
    workers: Annotated[int, typer.Option(help="Episodes that run at once, in one process.", min=1)] = 8,
    limit: Annotated[int | None, typer.Option(help="Only the first so many tasks.", min=1)] = None,
    budget: Annotated[
        str | None, typer.Option(help="turns=8,calls=12,frames=128,context=8192,tokens=4096,seconds=300")
    ] = None,
    encoder: Annotated[str, typer.Option(help="What clip indexes are embedded with.")] = "embedded",
    seed: Annotated[int, typer.Option(help="Of sampling; episode i of a task has seed + i.", min=0)] = 0,
    direct_share: Annotated[
        float, typer.Option(help="Share of the tasks asked without tools, with 8, 32 or 64 frames.", min=0.0, max=1.0)
    ] = 0.0,
    slips: Annotated[
        float, typer.Option(help="How often it looks at a wrong hit first.", min=0.0, max=1.0, rich_help_panel=_ORACLE)
    ] = 0.0,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Checkpoint whose tokens it speaks.", rich_help_panel=_ORACLE)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    attention: Attention = None,
    four_bit: FourBit = False,
    adapter: Adapter = None,
) -> None:
    """Let a policy play tasks, and keep what is worth learning from.

    Writes OUT/trajectories.jsonl (scored, no two alike, filtered), OUT/frames, and a data card. All episodes stay in
    OUT/episodes.jsonl: the same command with another --keep filters again and plays nothing again. A run that was stopped
    goes on.

    Examples:

        playhead collect --data world --model oracle --slips 0.08 --direct-share 0.12 --keep correct --out sets/oracle
        playhead collect --data world --model embedded --n 4 --keep correct,grounded,difficulty --out sets/round1
        playhead collect --data tasks.jsonl --model http://127.0.0.1:8000/v1#NAME --n 8 --keep agreement,format --out sets/big
        playhead data stats sets/round1
    """
    import asyncio

    from ..core.tasks import read_tasks
    from ..train.data.collect import Setup
    from ..train.data.collect import collect as run
    from ..train.data.filters import parse_filters

    load = parse_load(model, dtype=dtype, device_map=device_map, attention=attention, four_bit=four_bit, adapter=adapter)
    setup = Setup(
        model=model,
        strategy=strategy,
        frames=frames,
        direct_share=direct_share,
        n=n,
        seed=seed,
        temperature=(1.0 if n > 1 else 0.0) if temperature is None else temperature,
        budget=parse_budget(budget),
        encoder=encoder,
        load=load,
        slips=slips,
        tokenizer=tokenizer,
    )
    filters, scored_by = parse_filters(keep), _rubric(rubric)
    tasks = read_tasks(data)[:limit]
    quiet_loading(model)
    with progress_bar(aside(), count=True) as bar:
        row = bar.add_task("playing", total=None, visible=False)
        done = asyncio.run(
            run(
                tasks,
                out,
                setup,
                filters=filters,
                rubric=scored_by,
                workers=workers,
                verifier=_verifier(verifier, out),
                on_episode=lambda _, i, total: bar.update(row, completed=i, total=total, visible=True),
            )
        )
    if as_json:
        print((out / "card.json").read_text(encoding="utf-8"), end="")
        return
    from .data import drops_table

    console().print(drops_table(done.drops))
    console().print(f"{done.path}: {done.kept} trajectories", markup=False)
    if done.first_error is not None:
        failed = done.drops[0].dropped
        said = f"{failed} episodes failed; the first: {done.first_error}. The same command tries them again."
        aside().print(said, markup=False)


def _rubric(name: str):
    from ..train.rewards import RUBRICS
    from .options import UsageProblem

    if name not in RUBRICS:
        raise UsageProblem(f"--rubric {name!r}: take one of {', '.join(RUBRICS)}")
    return RUBRICS[name]()


def _verifier(model: str | None, out: Path):
    if model is None:
        return None
    from ..agent.video_agent import VideoAgent
    from ..train.data.verifier import EvidenceVerifier

    quiet_loading(model)
    agent = VideoAgent(model, frames=out / "frames")
    return EvidenceVerifier(policy=agent.policy, profile=agent.profile)

"""`playhead collect`: trajectories to learn from, by any policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    Adapter,
    Attention,
    CacheGb,
    DeviceMap,
    Dtype,
    FourBit,
    aside,
    console,
    parse_limits,
    parse_load,
    progress_bar,
    quiet_loading,
    say,
    tell,
)

if TYPE_CHECKING:
    from ..core.nouns import Task
    from ..train.data.collect import Collected
    from ..train.data.jobs import Setup

_ORACLE = "The oracle (--model oracle)"


def collect(
    data: Annotated[Path, typer.Option(help="A folder of `playhead world make`, or any tasks.jsonl.")],
    out: Annotated[Path, typer.Option(help="The folder of the set; the same command goes on with it.")],
    model: Annotated[
        str,
        typer.Option(
            help="oracle (for tasks of the world), embedded, a folder or hub id, or http://HOST:PORT/v1#NAME."
        ),
    ] = "embedded",
    strategy: Annotated[
        str,
        typer.Option(
            help="tools: the agent as it is. direct: uniform frames, no tools. Or any of docs/scaling.md, as vote(tools,n=4)."
        ),
    ] = "tools",
    frames: Annotated[int | None, typer.Option(help="Uniform frames of direct.", min=1)] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Runs of the strategy on each task.", min=1)] = 1,
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
        str | None,
        typer.Option(help="Another model for the filter `verified`; else the one that played.", metavar="MODEL"),
    ] = None,
    workers: Annotated[int, typer.Option(help="Episodes that run at once, in one process.", min=1)] = 8,
    limit: Annotated[int | None, typer.Option(help="Only the first so many tasks.", min=1)] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Hard limits of one run of the strategy: turns=8,calls=12,frames=128,context=8192,tokens=4096,seconds=300. "
            "What is not named is as much as the strategy needs."
        ),
    ] = None,
    encoder: Annotated[str, typer.Option(help="What clip indexes are embedded with.")] = "embedded",
    seed: Annotated[int, typer.Option(help="Of sampling; run i of a task has seed + i.", min=0)] = 0,
    direct_share: Annotated[
        float, typer.Option(help="Share of the tasks asked without tools, with 8, 32 or 64 frames.", min=0.0, max=1.0)
    ] = 0.0,
    slips: Annotated[
        float, typer.Option(help="How often it looks at a wrong hit first.", min=0.0, max=1.0, rich_help_panel=_ORACLE)
    ] = 0.0,
    checks: Annotated[
        int,
        typer.Option(help="How many wrong hits it looks at closely all the same, at most.", min=0, rich_help_panel=_ORACLE),
    ] = 0,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Checkpoint whose tokens it speaks.", rich_help_panel=_ORACLE)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    attention: Attention = None,
    four_bit: FourBit = False,
    adapter: Adapter = None,
    cache_gb: CacheGb = None,
) -> None:
    """Let a policy play tasks, and keep what is worth learning from.

    Writes OUT/trajectories.jsonl (scored, no two alike, filtered), OUT/frames, and a data card. All episodes stay in
    OUT/episodes.jsonl: the same command with another --keep filters again and plays nothing again. A command that was
    stopped goes on.

    With tools or direct a run is one episode. Of a strategy that asks several times all episodes are kept, each scored on
    its own, whichever answer the strategy took: TASK.0-2of3 is the second of three in run 0. Verdicts, critiques and
    captions are no episodes, and are not kept.

    Examples:

        playhead collect --data world --model oracle --slips 0.08 --direct-share 0.12 --keep correct --out sets/oracle
        playhead collect --data world --model embedded --n 4 --keep correct,grounded,difficulty --out sets/round1
        playhead collect --data world --strategy "vote(tools,n=4,early=no)" --budget frames=200 --out sets/votes
        playhead collect --data tasks.jsonl --model http://127.0.0.1:8000/v1#NAME --n 8 --keep agreement,format --out sets/big
        playhead data stats sets/round1
    """
    from ..core.tasks import read_tasks
    from ..train.data.filters import parse_filters
    from ..train.data.jobs import Setup

    setup = Setup(
        model=model,
        strategy=strategy,
        frames=frames,
        direct_share=direct_share,
        n=n,
        seed=seed,
        temperature=(1.0 if n > 1 else 0.0) if temperature is None else temperature,
        limits=parse_limits(budget or ""),
        encoder=encoder,
        load=parse_load(
            model,
            dtype=dtype,
            device_map=device_map,
            attention=attention,
            four_bit=four_bit,
            adapter=adapter,
            cache_gb=cache_gb,
        ),
        slips=slips,
        checks=checks,
        tokenizer=tokenizer,
    )
    filters, scored_by = parse_filters(keep), _rubric(rubric)
    tasks = read_tasks(data)[:limit]
    quiet_loading(model)
    done = _play(
        tasks, out, setup, filters=filters, rubric=scored_by, workers=workers, verifier=_verifier(verifier, out)
    )
    if as_json:
        print((out / "card.json").read_text(encoding="utf-8"), end="")
    else:
        _say(done)


def _play(tasks: Sequence[Task], out: Path, setup: Setup, **how: Any) -> Collected:
    import asyncio

    from ..train.data.collect import collect

    with progress_bar(aside(), count=True) as bar:
        row = bar.add_task("playing", total=None, visible=False)

        def note(_: object, runs: int, total: int) -> None:
            bar.update(row, completed=runs, total=total, visible=True)

        return asyncio.run(collect(tasks, out, setup, on_run=note, **how))


def _say(done: Collected) -> None:
    from .data import drops_table

    console().print(drops_table(done.drops))
    say(f"{done.path}: {done.kept} trajectories")
    if done.first_error is not None:
        failed = done.drops[0].dropped
        said = f"{failed} episodes failed; the first: {done.first_error}. The same command tries them again."
        tell(said)


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

"""`playhead eval`: the table of right answers, in a run folder that can be resumed; and two runs task by task."""

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
    aside,
    console,
    parse_limits,
    parse_load,
    progress_bar,
    quiet_loading,
    say,
)


def world(
    data: Annotated[Path, typer.Option(help="A folder that `playhead world make` wrote.")],
    out: Annotated[Path, typer.Option(help="The run's folder; the same command goes on with a run that stopped.")],
    model: Model = "embedded",
    strategy: Annotated[
        str, typer.Option(help="tools: the agent as it is. direct: N uniform frames, no tools. Or any of docs/scaling.md.")
    ] = "tools",
    frames: Annotated[int | None, typer.Option(help="How many uniform frames, with --strategy direct.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many tasks, taken from every kind in turn.", min=1)] = None,
    workers: Annotated[int, typer.Option(help="Processes, each with a model of its own.")] = 1,
    budget: Annotated[str | None, typer.Option(help="Limits of an episode, such as frames=64,seconds=20.")] = None,
    encoder: Annotated[str, typer.Option(help="embedded, or MODEL_NAME:/path/to/weights of OpenCLIP.")] = "embedded",
    seed: Annotated[int, typer.Option(help="Drives sampling, where the temperature is above 0.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.", min=0.0)] = 0.0,
    tools: Annotated[str | None, typer.Option(help="Only these tools, as a,b; else those the model was trained with.")] = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    attention: Attention = None,
    four_bit: FourBit = False,
    adapter: Adapter = None,
    cache_gb: CacheGb = None,
) -> None:
    """Measure a model on the world: with tools, with N uniform frames and no tools, or with a test-time scaling strategy.

    Prints a table with a row for each kind of question and writes RUN/summary.json, RUN/results.jsonl and
    RUN/trajectories.jsonl. "looked" is the share of tasks where the model was shown a frame of every event that the answer
    rests on, "recall" the mean share of those events' seconds that the tools showed; frames, calls and seconds are means.

    Examples:

        playhead eval world --data world --model embedded --strategy tools --out runs/tools
        playhead eval world --data world --model embedded --strategy direct --frames 32 --out runs/direct32
        playhead eval world --data rich --tools search_clips,temporal_zoom --out runs/without_subtitles
        playhead eval world --data world --strategy "vote(tools,n=8)" --budget frames=64 --out runs/vote
        playhead view runs/tools/trajectories.jsonl --out page.html
    """
    from ..evals.manifest import Setup
    from ..evals.report import table
    from ..evals.world import evaluate_world

    setup = Setup(
        model=model,
        strategy=strategy,
        frames=frames,
        encoder=encoder,
        limits=parse_limits(budget or ""),
        seed=seed,
        temperature=temperature,
        tools=None if tools is None else tuple(name.strip() for name in tools.split(",") if name.strip()),
        load=parse_load(
            model,
            dtype=dtype,
            device_map=device_map,
            attention=attention,
            four_bit=four_bit,
            adapter=adapter,
            cache_gb=cache_gb,
        ),
    )
    quiet_loading(model)
    right: list[bool] = []
    with progress_bar(aside(), count=True) as bar:
        row = bar.add_task("asking", total=None, visible=False)

        def note(result, done: int, total: int) -> None:
            right.append(result.right)
            words = f"asking ({sum(right) / len(right):.0%} right so far)"
            bar.update(row, completed=done, total=total, visible=True, description=words)

        summary, results = evaluate_world(data, out, setup, limit=limit, workers=workers, on_result=note)
    console().print(table(summary, results))
    say(f"{out / 'summary.json'}: accuracy {summary['accuracy']:.3f}")


def compare(
    before: Annotated[Path, typer.Argument(help="A run's folder.")],
    after: Annotated[Path, typer.Argument(help="Another's, over the same tasks.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare two runs over the same tasks, task by task.

    Right answers with McNemar's exact test; frames, calls, tokens and what was looked at with the difference and its interval,
    by a bootstrap over videos.

    Examples:

        playhead eval world --data unseen --model runs/sft/checkpoint --out runs/before
        playhead eval world --data unseen --model runs/rft/checkpoint --out runs/after
        playhead eval compare runs/before runs/after
    """
    import json

    from ..core.codec import to_plain
    from ..evals.compare import compare as made_of
    from ..evals.compare import comparison_table

    made = made_of(before, after)
    if as_json:
        print(json.dumps(to_plain(made), indent=2))
    else:
        console().print(comparison_table(made, before.name, after.name))

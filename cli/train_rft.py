"""`playhead train rft`: learn from one's own good episodes, in rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import UsageProblem, quiet_loading, say, tell


def rft(
    data: Annotated[Path, typer.Option(help="A task file, or a folder with one: not the tasks that you measure on.")],
    out: Annotated[Path, typer.Option(help="The folder of the run; the same command goes on with it.")],
    init: Annotated[
        str, typer.Option(help="Checkpoint that plays the first round: a folder, or embedded.")
    ] = "embedded",
    rounds: Annotated[int, typer.Option(help="Playing and learning, so often.", min=1)] = 2,
    n: Annotated[int, typer.Option("--n", "-n", help="Episodes of each task in each round.", min=1)] = 4,
    keep: Annotated[
        str,
        typer.Option(
            help="As for `playhead collect`: correct, grounded, format, verified, difficulty, ...", metavar="FILTERS"
        ),
    ] = "correct,grounded,format",
    cheapest: Annotated[
        int, typer.Option(help="At most so many episodes of a task, those with the fewest frames; 0: all.", min=0)
    ] = 2,
    temperature: Annotated[float, typer.Option(help="Of playing; above 0.")] = 1.0,
    recipe: Annotated[
        str, typer.Option(help="How it learns: embedded_cpu, qwen3vl_8b_sft or qwen3vl_8b_lora.")
    ] = "embedded_cpu",
    rate_scale: Annotated[float, typer.Option(help="Of the recipe's learning rates.")] = 0.2,
    passes: Annotated[float, typer.Option(help="How often every kept episode is seen in a round.")] = 2.0,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps a round; in place of --passes.", min=1)] = None,
    anchor: Annotated[
        list[Path] | None,
        typer.Option(help="A set that every round learns from too, so that nothing is forgotten; may repeat."),
    ] = None,
    from_init: Annotated[
        bool, typer.Option("--from-init", help="Every round learns from --init on, not from the last one.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad records of the sets learned from out, and count them.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Only the first so many tasks.", min=1)] = None,
    workers: Annotated[int, typer.Option(help="Episodes that run at once.", min=1)] = 8,
    encoder: Annotated[str, typer.Option(help="What clip indexes are embedded with.")] = "embedded",
    seed: Annotated[int, typer.Option(help="Of sampling.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what each round came to as JSON.")] = False,
) -> None:
    """Let a model play, keep what verifies, train it on that; and again with the better model (rejection-sampling fine-tuning).

    OUT/round-N/set has all episodes, the kept set and its card, OUT/round-N/sft the training, OUT/checkpoint the last model.
    A run that was stopped goes on when the same command is given again; more --rounds go on from where it ended.

    Examples:

        playhead world make --out tasks --videos 20 --seed 2100000
        playhead train rft --data tasks --out runs/rft --rounds 2 --n 4
        playhead train rft --data tasks --out runs/rft --rounds 3 --n 4
        playhead eval world --data unseen --model runs/rft/checkpoint --out runs/rft/unseen
    """
    import json

    from ..agent.embedded import EMBEDDED, checkpoint_dir
    from ..train.recipes import SFT_RECIPES
    from ..train.rft import RFTRun, train_rft

    if recipe not in SFT_RECIPES:
        raise UsageProblem(f"--recipe {recipe!r}: take one of {', '.join(SFT_RECIPES)}")
    try:
        run = RFTRun(
            tasks=data, init=str(checkpoint_dir()) if init == EMBEDDED else init, out=out, rounds=rounds, n=n,
            temperature=temperature, keep=keep, cheapest=cheapest or None, recipe=recipe, rate_scale=rate_scale,
            steps=steps, passes=passes, anchor=tuple(anchor or ()), from_init=from_init, skip_bad=skip_bad, limit=limit,
            workers=workers, seed=seed, encoder=encoder,
        )  # fmt: skip
    except ValueError as error:
        raise UsageProblem(str(error)) from None
    quiet_loading(run.init)
    told = train_rft(run, tell)
    if as_json:
        typer.echo(json.dumps(told))
        return
    for row in told["rounds"]:
        rate = row["right"] / max(1, row["played"])
        say(f"round {row['round']}: {rate:.1%} of {row['played']} episodes right, {row['kept']} learned from")
    say(f"{told['checkpoint']}: the last checkpoint; {out / 'checkpoint'} links to it")

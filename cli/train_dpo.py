"""`playhead train dpo`: learn from pairs of one's own episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import UsageProblem, quiet_loading, say

LOSSES = ("sigmoid", "length_normalised", "length_desensitised", "regularised", "ipo")


def dpo(
    data: Annotated[
        list[Path], typer.Option(help="Folder with groups of episodes (`playhead collect --n 4`); may repeat.")
    ],
    out: Annotated[Path, typer.Option(help="The folder of the run; the same command goes on with it.")],
    init: Annotated[
        str, typer.Option(help="Checkpoint to start from, which is the reference too: a folder, or embedded.")
    ] = ("embedded"),
    reasons: Annotated[
        str, typer.Option(help="right (over wrong), grounded (over lucky), cheap (over dear).", metavar="REASONS")
    ] = "right,grounded,cheap",
    per_reason: Annotated[int, typer.Option(help="Pairs of one task for one reason.", min=1)] = 2,
    loss: Annotated[str, typer.Option(help=", ".join(LOSSES))] = "sigmoid",
    beta: Annotated[float | None, typer.Option(help="Instead of the loss's own.", min=0.0)] = None,
    refined: Annotated[bool, typer.Option("--refined", help="Count only tokens from where the two differ.")] = False,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps; in place of --passes.", min=1)] = None,
    passes: Annotated[float, typer.Option(help="How often every pair is seen.")] = 1.0,
    batch: Annotated[int, typer.Option(help="Pairs in a batch.", min=1)] = 4,
    accumulate: Annotated[int, typer.Option(help="Batches of a step.", min=1)] = 1,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 1e-5,
    max_tokens: Annotated[int | None, typer.Option(help="Pairs with a longer side are left out.", min=1)] = None,
    lora: Annotated[int | None, typer.Option(help="Train an adapter of this rank, merged at the end.", min=1)] = None,
    held_out_every: Annotated[
        int, typer.Option(help="Every so-manieth task is kept for measuring; 0: none.", min=0)
    ] = 10,
    measure_every: Annotated[
        int, typer.Option(help="Steps between measurements; the state is saved with each.", min=1)
    ] = 50,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad records out and count them.")] = False,
    report_to: Annotated[str, typer.Option(help="none, tensorboard, trackio or wandb.")] = "none",
    seed: Annotated[int, typer.Option(help="Of the order of the pairs.", min=0)] = 42,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the pairs, by reason.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print counts and measurements as JSON.")] = False,
) -> None:
    """Prefer better episodes to worse ones of the same task: right to wrong, grounded to lucky, cheap to dear.

    Pairs are made from everything that was played (no filter hides the bad examples). Writes OUT/checkpoint, an ordinary
    checkpoint, pairs.json and curves. A run that was stopped goes on when the same command is given again.

    Examples:

        playhead collect --data world --model embedded --n 8 --out sets/groups
        playhead train dpo --data sets/groups --out runs/dpo --dry-run
        playhead train dpo --data sets/groups --out runs/dpo --reasons cheap,grounded --loss regularised --lr 2e-5
        playhead eval world --data unseen --model runs/dpo/checkpoint --out runs/dpo/unseen
    """
    import json
    from dataclasses import replace

    from ..train.pairs import PairRules, Reason, make_pairs, read_groups

    try:
        rules = PairRules(
            reasons=tuple(Reason(r.strip()) for r in reasons.split(",") if r.strip()), per_reason=per_reason
        )
    except ValueError:
        raise UsageProblem(f"--reasons {reasons!r}: take some of {', '.join(r.value for r in Reason)}") from None
    if loss not in LOSSES:
        raise UsageProblem(f"--loss {loss!r}: take one of {', '.join(LOSSES)}")
    if dry_run:
        bad: list[Exception] = []
        groups = read_groups(data, on_bad=bad.append if skip_bad else None)
        told: dict[str, object] = {**make_pairs(groups, rules).plain(), "bad_records_skipped": len(bad)}
    else:
        quiet_loading(init)
        from ..agent.embedded import EMBEDDED, checkpoint_dir
        from ..train.dpo import DPORun, Loss, train_dpo
        from ..train.sft_run import LANGUAGE_LINEARS

        reporting = {} if report_to == "none" else {"report_to": report_to}
        try:
            run = DPORun(
                init=str(checkpoint_dir()) if init == EMBEDDED else init, data=tuple(data), out=out, rules=rules,
                loss=Loss(loss), beta=beta, refined=refined, steps=steps, passes=passes, pairs_a_batch=batch,
                learning_rate=lr, max_tokens=max_tokens, held_out_every=held_out_every, measure_every=measure_every,
                skip_bad=skip_bad,
                trainer={"gradient_accumulation_steps": accumulate, "seed": seed, **reporting},
            )  # fmt: skip
        except ValueError as error:
            raise UsageProblem(str(error)) from None
        if lora is not None:
            run = replace(run, adapter={"r": lora, "lora_alpha": 2 * lora, "target_modules": LANGUAGE_LINEARS})
        told = train_dpo(run)
    if as_json:
        typer.echo(json.dumps(told))
        return
    for name, value in told.items():
        say(f"{name}: {value}")

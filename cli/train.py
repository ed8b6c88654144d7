"""`playhead train sft` and `playhead train merge`: learn from recorded episodes; write an adapter into its weights."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import UsageProblem, quiet_loading, say

if TYPE_CHECKING:
    from ..train.sft_run import SFTRun

_SETTABLE = (int, float, bool, str, type(None))


def sft(
    data: Annotated[list[Path], typer.Option(help="Folder of `playhead collect`; may be given several times.")],
    out: Annotated[Path, typer.Option(help="The folder of the run; the same command goes on with a run that stopped.")],
    recipe: Annotated[str, typer.Option(help="embedded_cpu, qwen3vl_8b_sft or qwen3vl_8b_lora.")] = "embedded_cpu",
    init: Annotated[
        str | None, typer.Option(help="Checkpoint to start from: a folder, a hub id, or embedded; else the recipe's own.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps; in place of the recipe's passes.", min=1)] = None,
    passes: Annotated[float | None, typer.Option(help="How often every episode is seen.", min=0.0)] = None,
    tasks: Annotated[
        Path | None, typer.Option(help="Held-out tasks: the agent plays them at every measurement, the best weights win.")
    ] = None,
    tasks_limit: Annotated[int, typer.Option(help="So many of --tasks, spread over the kinds.", min=1)] = 28,
    encoder: Annotated[str, typer.Option(help="What clip indexes of --tasks are embedded with.")] = "embedded",
    measure_every: Annotated[
        int | None, typer.Option(help="Steps between measurements; the state is saved with each.", min=1)
    ] = None,
    four_bit: Annotated[bool, typer.Option("--four-bit", help="QLoRA: NF4 weights under the adapter; needs a GPU.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad records out and count them.")] = False,
    report_to: Annotated[str, typer.Option(help="none, tensorboard, trackio or wandb.")] = "none",
    seed: Annotated[int, typer.Option(help="Of the order of the episodes.", min=0)] = 42,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE of the run (see --dry-run) or of TRL's SFTConfig.", metavar="NAME=VALUE"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the run and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print counts and measurements as JSON.")] = False,
) -> None:
    """Teach a model to speak like recorded episodes: its thoughts, calls and answers, never what the tools said.

    A recipe is a Python function that returns a run; the flags change it. Writes OUT/checkpoint, an ordinary checkpoint
    (for a LoRA recipe also OUT/adapter), curve.jsonl, curve.png and run.json. A run that was stopped goes on when the same
    command is given again. Several processes: `torchrun --nproc-per-node 2 -m playhead train sft ...` on CPUs,
    `accelerate launch --config_file train/accelerate/fsdp2.yaml -m playhead train sft ...` on GPUs.

    Examples:

        playhead collect --data world --model oracle --out sets/oracle
        playhead train sft --data sets/oracle --init embedded --out runs/sft --steps 200
        playhead train sft --data sets/oracle --init embedded --out runs/best --tasks unseen --measure-every 50
        playhead train sft --recipe qwen3vl_8b_lora --data sets/big --out runs/lora --set learning_rate=5e-5 --dry-run
        playhead ask --model runs/sft/checkpoint video.mp4 "Which way does the red star move?"
    """
    run = _run_of(recipe, init, data, out)
    from ..train.sft_run import AgentEval

    changes: dict[str, Any] = {"steps": steps, "passes": passes, "measure_every": measure_every}
    changes = {name: value for name, value in changes.items() if value is not None}
    if skip_bad:
        changes["skip_bad"] = True
    if four_bit:
        changes |= {"four_bit": True, "merge": False}
    if tasks is not None:
        changes["agent_eval"] = AgentEval(tasks=tasks, limit=tasks_limit, encoder=encoder)
    trainer = {**run.trainer, "seed": seed, "report_to": report_to}
    for text in set_ or ():
        name, value = setting(text)
        if name in {f.name for f in fields(run)}:
            if not isinstance(getattr(run, name), _SETTABLE):
                raise UsageProblem(f"--set {name}: has no single value; write a recipe of your own (train/recipes)")
            changes[name] = value
        else:
            trainer[name] = value
    try:
        run = replace(run, **changes, trainer=trainer)
    except (ValueError, TypeError) as error:
        raise UsageProblem(f"recipe {recipe}: {error}") from None
    if dry_run:
        typer.echo(json.dumps(run.plain(), indent=2))
        return
    quiet_loading(run.init)
    from ..train.sft import train_sft

    _tell(train_sft(run), as_json=as_json)


def merge(
    adapter: Annotated[Path, typer.Option(help="Folder of a PEFT adapter, such as RUN/adapter.")],
    out: Annotated[Path, typer.Option(help="Folder to write the checkpoint into; must be empty.")],
    init: Annotated[str | None, typer.Option(help="The checkpoint under it; else the one that the adapter names.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights written: auto, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Write an adapter into the weights it was trained on: the result is an ordinary checkpoint.

    Examples:

        playhead train merge --adapter runs/lora/adapter --out runs/lora/merged
        playhead ask --model runs/lora/merged video.mp4 "What happens at the end?"
    """
    from ..agent.policies.loading import DTYPES

    if dtype not in DTYPES:
        raise UsageProblem(f"--dtype {dtype!r}: one of {', '.join(DTYPES)}")
    quiet_loading(init or "embedded")
    from ..train.merge import merge_adapter

    say(f"{merge_adapter(adapter, out, _checkpoint(init), dtype)}: an ordinary checkpoint, ready for --model")


def _run_of(name: str, init: str | None, data: list[Path], out: Path) -> SFTRun:
    from ..train.recipes import recipe

    init = _checkpoint(init)
    try:
        make = recipe(name)
    except ValueError as error:
        raise UsageProblem(f"--recipe: {error}") from None
    if init is None and name == "embedded_cpu":
        init = _checkpoint("embedded")
    return make(data=data, out=out, **({} if init is None else {"init": init}))


def _checkpoint(name: str | None) -> str | None:
    """A folder for `embedded`, everything else as it is."""
    from ..agent.embedded import EMBEDDED, checkpoint_dir

    return str(checkpoint_dir()) if name == EMBEDDED else name


def setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE; the value is JSON, or else a string."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not name or not equals:
        raise UsageProblem(f"--set {text!r}: write NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _tell(result: dict[str, Any], *, as_json: bool) -> None:
    import os

    if int(os.environ.get("RANK", "0")):
        return
    if as_json:
        typer.echo(json.dumps(result))
        return
    where = result["checkpoint"]
    left_out = [f"{result[n]} {n.replace('_', ' ')}" for n in ("bad_records_skipped", "turns_dropped", "samples_dropped")]
    say(f"{result['samples']} episodes, {result['held_out']} held out; {', '.join(left_out)}")
    shown = (("eval_loss", "held-out loss"), ("eval_token_accuracy", "tokens right"), ("eval_agent_accuracy", "agent"))
    said = [f"{label} {result[name]:.4f}" for name, label in shown if name in result]
    say(f"{where}: {', '.join(said) or 'done'}")

"""`playhead train grpo`: reinforcement learning with the real agent and its tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import quiet_loading, say, tell
from .train import setting


def grpo(
    out: Annotated[Path, typer.Option(help="The run's folder; the same command goes on with a run that stopped.")],
    recipe: Annotated[
        str,
        typer.Option(
            help="embedded_cpu: a demonstration on two cores, in minutes; world_rl: after SFT, on ever new questions."
        ),
    ] = "embedded_cpu",
    data: Annotated[Path | None, typer.Option(help="A folder with tasks.jsonl; else the recipe makes films.")] = None,
    model: Annotated[str, typer.Option(help="embedded, or a folder with a checkpoint to start from.")] = "embedded",
    steps: Annotated[
        int | None, typer.Option(help="Updates of the weights, else the recipe's own number.", min=1)
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate, else the recipe's own.", min=0.0)] = None,
    seed: Annotated[int, typer.Option(help="Of tasks and sampling.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="NAME=VALUE of the recipe (reward, frames, seconds, observations, by_difficulty, credit, correction, refills) "
            "or of TRL's GRPOConfig.",
            metavar="NAME=VALUE",
        ),
    ] = None,
) -> None:
    """Let a model learn from its own episodes: groups of rollouts, rewards from the environment's log, GRPO.

    Prints a line a step. OUT/run.png shows the curves, OUT/metrics.jsonl the figures, OUT/trajectories/ some episodes
    of every fifth step, OUT/final the trained checkpoint. A guard stops a run that goes wrong and says why.

    Examples:

        playhead train grpo --recipe embedded_cpu --out runs/grpo
        playhead view runs/grpo/trajectories/step-00005.jsonl --out page.html
        playhead ask video.mp4 "Which way does the red star move?" --model runs/grpo/final
        playhead train grpo --data tasks --out runs/greedier --rate 1e-4 --set temperature=1.0 --set beta=0.01
        playhead train grpo --data tasks --out runs/free-frames --set frames=0
        playhead train grpo --data tasks --out runs/groups-of-4 --set num_generations=4
        playhead train grpo --data tasks --out runs/read-text --set reward=text
        playhead train grpo --data tasks --out runs/unmasked --set observations=true
    """
    from ..train.grpo.run import carry_out, make_recipe

    quiet_loading(model)
    given: dict[str, Any] = {"steps": steps, "rate": rate}
    given = {k: v for k, v in given.items() if v is not None} | dict(map(setting, set_ or ()))
    made = make_recipe(recipe, out, {"model": model, "seed": seed, **given})
    trainer = carry_out(made, out, data, tell)
    steps_done = trainer.records.steps
    if steps_done and trainer.accelerator.is_main_process:
        first, last = steps_done[: max(1, len(steps_done) // 5)], steps_done[-max(1, len(steps_done) // 5) :]

        def mean(rows: list[dict[str, float]], name: str) -> float:
            return sum(row.get(name, 0.0) for row in rows) / len(rows)

        for name in ("reward", "right", "frames", "calls"):
            say(f"{name}: {mean(first, name):.3f} -> {mean(last, name):.3f}")
        say(f"{out / 'final'}: the trained checkpoint; {out / 'run.png'}: the curves")

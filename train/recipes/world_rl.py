"""`world_rl`: reinforcement learning of a model of the world after SFT, on ever new questions.

    playhead train grpo --recipe world_rl --model runs/sft/checkpoint --data TASKS --seed 0 --out runs/rl

Where `embedded_cpu` demonstrates that the machinery learns, on fourteen questions asked again and again, this is for a better
model on questions never seen. It samples at temperature 1, the distribution that the model is used with; draws questions by
how much there is to learn from them, p (1 - p); and replaces groups without signal once a step (DAPO's dynamic sampling,
bounded). The reward is that of the world: answer, events really shown, format, minus frames.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..grpo.run import Films, Recipe
from .embedded_grpo import embedded_cpu

FILMS = Films(videos=40, minutes=(7.0, 8.0, 9.0), seed=2_200_000, draws=3)


def world_rl(out: Path, *, steps: int = 120, refills: int = 1, **changes: Any) -> Recipe:
    """32 rollouts a step, in groups of eight.

    Args:
        out: the run's folder.
        steps: updates of the weights.
        refills: so many times a step, groups without signal are replaced by new ones.
        changes: of `embedded_cpu`.
    """
    usual = {"frames": 0.1, "by_difficulty": True, "temperature": 1.0}
    base = embedded_cpu(out, steps=steps, **{**usual, **changes})
    return replace(base, plan=replace(base.plan, refills=refills), films=FILMS)

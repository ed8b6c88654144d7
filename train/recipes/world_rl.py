"""`world_rl`: reinforcement learning of a model of the world after SFT, on ever new questions.

    playhead train grpo --recipe world_rl --model runs/sft/checkpoint --seed 0 --out runs/rl

Where `embedded_cpu` demonstrates that the machinery learns, on fourteen questions asked again and again, this makes a better
model: 1,200 questions about 52 films, hardly any of them asked twice, sampled at temperature 1, the distribution that
the model is used with. The reward is that of the world: answer, events and gold seconds really shown, format, minus frames. A
right answer that nothing was looked at for gets less than one with its evidence, and of two with the same evidence the one that
looked at less gets more. All questions alike, since one that is always answered rightly still teaches what can be left out. The
rate falls to nothing, so that the last steps settle what the first ones found.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ...world.questions import ALL_KINDS
from ..grpo.run import Films, Recipe
from .embedded_grpo import embedded_cpu

FILMS = (
    Films(videos=40, minutes=(7.0, 8.0, 9.0), seed=2_200_000, draws=3),
    Films(videos=12, minutes=(7.0, 8.0, 9.0), seed=2_300_000, draws=3, kinds=ALL_KINDS),
)


def world_rl(out: Path, *, steps: int = 75, haze: float = 0.0, **changes: Any) -> Recipe:
    """32 rollouts a step, in groups of eight.

    Args:
        out: the run's folder.
        steps: updates of the weights.
        haze: of the plain films (`world.scene.Scene.haze`); the rich ones stay clear, so that what is clear is not forgotten.
        changes: of `embedded_cpu`.
    """
    usual = {"rate": 1e-4, "lr_scheduler_type": "linear", "frames": 0.3, "seconds": 0.25, "temperature": 1.0}
    plain, rich = FILMS
    return replace(embedded_cpu(out, steps=steps, **{**usual, **changes}), films=(replace(plain, haze=haze), rich))

"""`embedded_cpu` for GRPO: see the reward of the embedded model rise, on two cores, within twenty minutes.

    playhead train grpo --recipe embedded_cpu --out runs/grpo

The model that ships is right nearly always when it takes its likeliest token, so greedily there is little left to learn
from films like these. Sampled hot (temperature 1.6) it is not: it looks away, misreads, and loses its format. That
gap is what this run closes, by the same means that any other takes: groups of episodes with the real tools, rewards
from the environment's log (answer, events really shown, format, minus frames), GRPO. What rises is the reward of what
it samples, on the fourteen questions that it is asked again and again. It is a demonstration of the machinery, not
a better model: for that, give other questions (`--data`) than those that it is measured with.

Few questions, since with four groups a step a curve over many would show which questions came up, and not what was
learnt. A first try that lost 13 points in 60 steps (rate 1e-4, 18 rollouts a step of ever new questions, no clipping) is
why there are more rollouts, a warm-up, clipped gradients, and groups without signal left out.

For ablations, each against the same command without it:

    --set observations=true       tools' words are trained on too
    --set reward=text             the reward is read from what the model wrote instead of the environment's log
    --set frames=0                frames cost nothing
    --set num_generations=4       groups of 4, twice as many of them: a step has 32 rollouts in any case
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.budget import Budget
from ...core.errors import DataError
from ..grpo.advantages import TurnCredit
from ..grpo.curriculum import CurriculumOptions
from ..grpo.plan import Correction, Plan
from ..grpo.run import Films, Recipe
from ..rewards.rubrics import text_rubric, world_rubric

FILMS_SEED = 2_100_000
TEMPERATURE = 1.6
REWARDS = {"world": world_rubric, "text": text_rubric}
USUAL: dict[str, Any] = dict(
    num_generations=8,
    per_device_train_batch_size=16,
    gradient_accumulation_steps=2,
    lr_scheduler_type="constant_with_warmup",
    warmup_steps=2,
    adam_beta2=0.98,
    max_grad_norm=1.0,
    loss_type="dapo",
    epsilon_high=0.28,
    beta=0.0,
    temperature=TEMPERATURE,
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    logging_steps=1,
    save_steps=10,
    save_total_limit=2,
    disable_tqdm=True,
)
"""Fields of TRL's `GRPOConfig` that no switch of the recipe has another name for."""


def embedded_cpu(
    out: Path,
    *,
    steps: int = 40,
    seed: int = 0,
    model: str = "embedded",
    rate: float = 3e-4,
    reward: str = "world",
    frames: float = 0.2,
    seconds: float = 0.0,
    observations: bool = False,
    by_difficulty: bool = False,
    credit: float = 0.0,
    correction: str = "none",
    refills: int = 0,
    train_vision: bool = False,
    **args: Any,
) -> Recipe:
    """Four groups of eight rollouts a step.

    Args:
        out: the run's folder.
        steps: updates of the weights.
        seed: of tasks and sampling.
        model: "embedded", or a folder with a model of the same world.
        rate: the learning rate.
        reward: "world", read from the environment's log, or "text", from what the model wrote (an ablation).
        frames: weight of the cost of frames; 0: they cost nothing, and are logged all the same.
        seconds: weight of the share of gold seconds shown; the events shown are in the reward in any case.
        observations: train on tools' words too (an ablation).
        by_difficulty: ask oftener what is neither always right nor always wrong. False: all tasks alike, since a curve
            over tasks that grow harder would hide what was learnt.
        credit: weight of credit by turns (`TurnCredit`); 0: all tokens of a rollout share one advantage.
        correction: what is done about a sampler that differs from the trainer: none, token, sequence or clip.
        refills: so many times a step, groups without signal are replaced by new ones (DAPO's dynamic sampling, bounded).
        train_vision: train the vision tower too, instead of keeping what it says of a frame over the whole run.
        args: fields of TRL's `GRPOConfig`, in place of `USUAL`.

    Raises:
        DataError: no reward or correction of that name.
        PlanError: options that do not go together.
    """
    if reward not in REWARDS:
        raise DataError(f"reward={reward!r}: take one of {', '.join(REWARDS)}")
    if correction not in (known := [c.value for c in Correction]):
        raise DataError(f"correction={correction!r}: take one of {', '.join(known)}")
    from trl.trainer.grpo_config import GRPOConfig

    own = {"output_dir": str(out), "max_steps": steps, "seed": seed, "learning_rate": rate, "report_to": []}
    plan = Plan(
        args=GRPOConfig(**{**USUAL, **own, **args}),
        rubric=REWARDS[reward](frames=frames, seconds=seconds),
        observations=observations,
        credit=TurnCredit(weight=credit) if credit else None,
        correction=Correction(correction),
        refills=refills,
        curriculum=CurriculumOptions(by_difficulty=by_difficulty),
    )
    return Recipe(
        plan=plan,
        films=(Films(videos=2, minutes=(5.0,), seed=FILMS_SEED),),
        model=model,
        budget=Budget(wall_s=None),
        train_vision=train_vision,
    )

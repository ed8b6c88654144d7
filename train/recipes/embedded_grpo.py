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
"""

from __future__ import annotations

from pathlib import Path

from ...core.budget import Budget
from ..grpo.advantages import Scale
from ..grpo.curriculum import CurriculumOptions
from ..grpo.plan import Plan
from ..grpo.run import Films, Recipe
from ..rewards.rubrics import world_rubric

FILMS_SEED = 2_100_000
TEMPERATURE = 1.6


def embedded_cpu(out: Path, *, steps: int = 40, seed: int = 0, model: str = "embedded", rate: float = 3e-4) -> Recipe:
    """Four groups of eight rollouts a step.

    Args:
        out: the run's folder.
        steps: updates of the weights.
        seed: of tasks and sampling.
        model: "embedded", or a folder with a model of the same world.
        rate: the learning rate.
    """
    from trl.trainer.grpo_config import GRPOConfig

    args = GRPOConfig(
        output_dir=str(out),
        max_steps=steps,
        seed=seed,
        num_generations=8,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=2,
        learning_rate=rate,
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
        report_to=[],
        disable_tqdm=True,
    )
    plan = Plan(
        args=args,
        rubric=world_rubric(frames=0.2),
        scale=Scale.GROUP,
        # All tasks alike: a curve over tasks that grow harder would hide what was learnt.
        curriculum=CurriculumOptions(by_difficulty=False),
    )
    return Recipe(
        plan=plan,
        films=Films(videos=2, minutes=(5.0,), seed=FILMS_SEED),
        model=model,
        budget=Budget(wall_s=None),
    )

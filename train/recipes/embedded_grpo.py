"""`embedded_cpu` for GRPO: the embedded model gets surer and cheaper, on two cores, within twenty minutes.

    playhead train grpo --recipe embedded_cpu --out runs/grpo

The model that ships answers right when it takes its likeliest token, and often goes wrong when it samples. So it
samples hot (1.4), where its rollouts differ, and the reward (answer, evidence really shown, format, minus frames)
pulls what it samples towards what it knows, and away from looks it does not need. What a first try lost (13 points in
60 steps: rate 1e-4, 18 rollouts a step) is why it is as it is: more rollouts a step, a lower rate with a warm-up,
gradients clipped, groups without signal left out.
"""

from __future__ import annotations

from pathlib import Path

from ...agent.embedded import EMBEDDED_PROFILE
from ...core.budget import Budget
from ..grpo.advantages import Scale
from ..grpo.curriculum import CurriculumOptions
from ..grpo.plan import Plan
from ..grpo.run import Films, Recipe
from ..rewards.rubrics import world_rubric

FILMS_SEED = 2_100_000


def embedded_cpu(out: Path, *, steps: int = 40, seed: int = 0, model: str = "embedded", rate: float = 5e-5) -> Recipe:
    """Six groups of eight rollouts a step.

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
        per_device_train_batch_size=12,
        gradient_accumulation_steps=4,
        learning_rate=rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=3,
        adam_beta2=0.98,
        max_grad_norm=0.5,
        loss_type="dapo",
        epsilon_high=0.28,
        beta=0.0,
        temperature=1.4,
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
        films=Films(videos=12, minutes=(5.0, 6.0, 7.0), seed=FILMS_SEED, draws=2),
        model=model,
        profile=EMBEDDED_PROFILE,
        budget=Budget(wall_s=None),
    )

"""Plan: all that a GRPO run is, as one value. A recipe is a function that returns one (`train/recipes/`).

What TRL has a field for stays in TRL's own `GRPOConfig` (`args`): rate, clipping (`epsilon`, `epsilon_high`), `beta`
(KL to the first policy), `loss_type` (grpo, dr_grpo, dapo, cispo, ...), `importance_sampling_level` ("sequence" is
GSPO), `scale_rewards` (what advantages are divided by), `num_generations` (the size of a group), batch sizes, how often it
saves. What TRL knows nothing of stands here.

A step takes `per_device_train_batch_size * steps_per_generation` rollouts on every process, in whole groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from ...core.errors import PlayheadError
from ..rewards.rubric import Rubric
from ..rewards.verify import Judge
from .advantages import Scale, TurnCredit
from .curriculum import CurriculumOptions
from .guards import Limits

if TYPE_CHECKING:
    from trl.trainer.grpo_config import GRPOConfig


LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")
LEVELS = ("token", "sequence")


class PlanError(PlayheadError):
    """A plan that cannot be carried out."""


class Correction(str, Enum):
    """What is done about a sampler whose log-probs are not the trainer's (bf16, a server, other kernels).

    NONE       nothing: in float32 the two are equal to 1e-6
    TOKEN      each token's loss is multiplied by min(ratio, cap), ratio = p_trainer / p_sampler (truncated importance
               sampling, F. Yao et al. 2025)
    SEQUENCE   each rollout's loss by its product of ratios, 0 where that is above the cap (masked importance sampling;
               TRL's default with vLLM)
    CLIP       the ratio that the loss clips is taken against the sampler instead of the old policy
    """

    NONE = "none"
    TOKEN = "token"
    SEQUENCE = "sequence"
    CLIP = "clip"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Raises: PlanError: options that do not go together."""

    args: GRPOConfig
    rubric: Rubric
    credit: TurnCredit | None = None
    """Credit by turns; None: all tokens of a rollout share one advantage."""
    keep_without_signal: bool = False
    """False drops groups whose rewards are all alike, and counts them."""
    refills: int = 0
    """So many times per step dropped groups are replaced by new ones (DAPO's dynamic sampling, bounded)."""
    correction: Correction = Correction.NONE
    correction_cap: float = 3.0
    shuffled: int = 0
    """So many more rollouts of each task on shuffled frames, for a rubric with T-GRPO's temporal contrast (Video-R1 takes half
    a group). They are compared with, and not trained on."""
    without_tools: int = 0
    """So many more rollouts of each task without tools, for a rubric with `ToolNecessity`. Compared with, not trained on."""
    verify: bool = False
    """The policy answers again from the looked-at clips alone, for a rubric with `Completeness` (TimeSearch-R)."""
    judge: Judge | None = None
    """Scores answers in free words, for a rubric with `OpenText.JUDGE`."""
    observations: bool = False
    """For an ablation: what tools said is trained on too, as if the policy had said it. Never good for the policy."""
    curriculum: CurriculumOptions = field(default_factory=CurriculumOptions)
    limits: Limits = field(default_factory=Limits)
    rollout_limit_s: float = 600.0
    at_once: int = 64
    sample_every: int = 5
    """Steps between two files of trajectories to look at."""
    samples: int = 16
    """Trajectories in each."""

    def __post_init__(self) -> None:
        a = self.args
        _check_names(a)
        self._check_numbers()
        if a.mask_truncated_completions:
            raise PlanError(
                "mask_truncated_completions must stay False: with frames of different sizes TRL then gives wrong positions to "
                "the samples after a truncated one; give truncated rollouts a reward instead"
            )
        if self.observations and self.correction is not Correction.NONE:
            raise PlanError(
                f"observations with correction={self.correction.value!r}: what a tool said has no log-prob of the sampler to "
                "correct by; take Correction.NONE"
            )
        rollouts = a.per_device_train_batch_size * self.steps_per_generation
        if rollouts % self.group_size:
            raise PlanError(
                f"{rollouts} rollouts on each process (per_device_train_batch_size * steps_per_generation) are no whole "
                f"number of groups of {a.num_generations} (num_generations)"
            )
        micro = int(a.save_steps) * a.gradient_accumulation_steps if a.save_steps >= 1 else 0
        if a.save_strategy == "steps" and micro % (self.steps_per_generation * a.num_iterations):
            raise PlanError(
                f"save_steps={a.save_steps} would save in the middle of a round of rollouts, which is not kept: a resumed run "
                "would differ; save_steps * gradient_accumulation_steps must be a multiple of steps_per_generation * "
                f"num_iterations = {self.steps_per_generation * a.num_iterations}"
            )
        cut = [f"{name}={value}" for name, value, off in _cuts(a) if value not in off]
        if cut:
            raise PlanError(
                f"{', '.join(cut)}: rollouts are sampled from the whole distribution, whose log-probs the loss computes; what "
                "cuts or bends it would make sampler and trainer differ. Leave it at its default, and use temperature"
            )
        if a.use_vllm:
            raise PlanError(
                "use_vllm is TRL's own way of generating; for rollouts on a vLLM server see train/grpo/server.py"
            )

    def _check_numbers(self) -> None:
        least = {"refills": 0, "shuffled": 0, "without_tools": 0, "samples": 0, "at_once": 1, "sample_every": 1}
        for name, limit in least.items():
            if getattr(self, name) < limit:
                raise PlanError(f"{name}={getattr(self, name)}: must be {limit} or more")
        above = {"temperature": self.args.temperature, "correction_cap": self.correction_cap}
        for name, value in (above | {"rollout_limit_s": self.rollout_limit_s}).items():
            if not 0 < value < math.inf:
                raise PlanError(f"{name}={value}: must be above 0")

    @property
    def scale(self) -> Scale:
        """What advantages are divided by."""
        return Scale(self.args.scale_rewards)

    @property
    def steps_per_generation(self) -> int:
        return int(self.args.steps_per_generation or self.args.gradient_accumulation_steps)

    @property
    def group_size(self) -> int:
        return int(self.args.num_generations or 8)

    @property
    def groups(self) -> int:
        """Groups of a step on each process."""
        return self.args.per_device_train_batch_size * self.steps_per_generation // self.group_size


def _check_names(args: GRPOConfig) -> None:
    """What TRL finds out only in the first loss."""
    for name, known in (
        ("loss_type", LOSSES),
        ("importance_sampling_level", LEVELS),
        ("scale_rewards", tuple(scale.value for scale in Scale)),
    ):
        value = getattr(args, name)
        if value not in known:
            raise PlanError(f"{name}={value!r}: take one of {', '.join(known)}")


def _cuts(args: GRPOConfig) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """(field of TRL, its value, values at which it does nothing) of all that cuts or bends what is sampled from."""
    return [
        ("top_p", args.top_p, (None, 1.0)),
        ("top_k", args.top_k, (None, 0, -1)),
        ("min_p", args.min_p, (None, 0.0)),
        ("repetition_penalty", args.repetition_penalty, (None, 1.0)),
    ]

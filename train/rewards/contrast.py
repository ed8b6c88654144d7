"""T-GRPO: does the order of the frames matter to the answer?

A task is rolled out twice, with its frames in order and with the same frames shuffled. Where order decides, the
ordered rollouts are right more often, and being right earns a bonus. The rates of both groups are put into the
context by whoever made the groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...core.trajectory import Trajectory
from .context import Contrast, RewardContext, RewardError, right


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalContrast:
    """1[right] * max(0, p - q): how much oftener ordered frames (p) lead to a right answer than shuffled ones (q), in [0, 1].

    Source: T-GRPO (Video-R1); the form is ours: nothing where order does not matter, and no step at a threshold.
    """

    name: str = "temporal_contrast"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        rates = _rates(context)
        return max(0.0, rates.ordered - rates.shuffled) if right(trajectory.task, trajectory.answer) else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTemporalContrast:
    """1[right] * 1[p >= 0.8 q]: T-GRPO as published; also pays where order does not matter (p = q).

    Source: Video-R1 `grpo_trainer.py`, weight 0.3; q is the rate of right answers among G/2 rollouts on shuffled frames.
    """

    name: str = "temporal_contrast_published"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        rates = _rates(context)
        return float(right(trajectory.task, trajectory.answer) and rates.ordered >= 0.8 * rates.shuffled)


def contrast_of(ordered: Sequence[Trajectory], shuffled: Sequence[Trajectory]) -> Contrast:
    """The rates of right answers in two groups of one task; rollouts that ended in an error are left out.

    Raises:
        RewardError: groups of different tasks, or one without a rollout that ended.
    """
    groups = [[t for t in group if t.error is None] for group in (ordered, shuffled)]
    if not all(groups) or len({t.task.id for group in groups for t in group}) != 1:
        raise RewardError("a contrast needs at least one finished rollout of the same task in order and shuffled")
    p, q = (sum(right(t.task, t.answer) for t in group) / len(group) for group in groups)
    return Contrast(ordered=p, shuffled=q)


def _rates(context: RewardContext) -> Contrast:
    if context.contrast is None:
        raise RewardError("the temporal contrast needs the rates of ordered and shuffled rollouts in the context")
    return context.contrast

"""Advantages: how much better a rollout did than the others of its group.

    A_i = r_i - mean(r)                   Dr. GRPO (Z. Liu et al. 2025, "Understanding R1-Zero-Like Training", 3.2)
    A_i = (r_i - mean(r)) / std(r)        GRPO (Z. Shao et al. 2024, "DeepSeekMath", 4.1.1)
    A_i = (r_i - mean(r)) / std(batch)    REINFORCE++ (J. Hu 2025), with the group's mean

With credit by turns, what a turn found counts for that turn and those before it (after S. Zeng et al. 2025,
"Reinforcing Multi-Turn Reasoning in LLM Agents via Turn-Level Credit Assignment"):

    A_ik = A_i + weight * (R_ik - mean over rollouts that have a turn k of R_.k)
    R_ik = sum_{j >= k} discount^(j-k) r_ij

Pure arithmetic; G rollouts of a group, K turns of a rollout. A group whose rewards are all alike teaches nothing
(every A is 0), and is dropped and counted by whoever asks `has_signal` (DAPO, Q. Yu et al. 2025, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ...core.scoring import evidence_recall
from ...core.trajectory import Trajectory

SPREAD = 1e-6
"""Rewards that differ by less are alike."""
EPSILON = 1e-4
"""Added to a standard deviation, as TRL does."""


class Scale(str, Enum):
    """What the difference to the mean is divided by."""

    GROUP = "group"
    BATCH = "batch"
    NONE = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnCredit:
    """Credit by turns; see the module. The turn's own reward is the share of the gold seconds that it was first to look at.

    Raises:
        ValueError: a weight below 0, or a discount outside [0, 1].
    """

    weight: float = 0.5
    discount: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.weight < math.inf and 0 <= self.discount <= 1):
            raise ValueError(f"turn credit needs a weight of 0 or more and a discount in [0, 1]; got {self}")


def has_signal(rewards_G: Sequence[float]) -> bool:
    """Do the rewards of a group differ?"""
    return len(rewards_G) > 1 and max(rewards_G) - min(rewards_G) > SPREAD


def group_advantages(
    groups: Sequence[Sequence[float]], scale: Scale, batch_std: float | None = None
) -> list[list[float]]:
    """One advantage per reward, group by group.

    Args:
        batch_std: for `Scale.BATCH`, where the batch is spread over processes; None: of these groups.
    """
    if batch_std is None and scale is Scale.BATCH:
        batch_std = standard_deviation([r for group in groups for r in group])
    out = []
    for rewards in groups:
        mean = math.fsum(rewards) / len(rewards)
        spread = {Scale.GROUP: standard_deviation(rewards), Scale.BATCH: batch_std, Scale.NONE: None}[scale]
        unit = 1.0 if spread is None else spread + EPSILON
        out.append([(r - mean) / unit for r in rewards])
    return out


def standard_deviation(values: Sequence[float]) -> float:
    """With n - 1, as torch and TRL have it; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def turn_advantages(
    outcome_G: Sequence[float], turn_rewards_GK: Sequence[Sequence[float]], credit: TurnCredit
) -> list[list[float]]:
    """(G, K) advantages from those of the outcome and the rewards of each turn; K differs between rollouts."""
    returns = [_to_go(rewards, credit.discount) for rewards in turn_rewards_GK]
    means = []
    for k in range(max(map(len, returns), default=0)):
        there = [r[k] for r in returns if len(r) > k]
        means.append(math.fsum(there) / len(there))
    return [
        [outcome + credit.weight * (r - means[k]) for k, r in enumerate(own)]
        for outcome, own in zip(outcome_G, returns, strict=True)
    ]


def _to_go(rewards_K: Sequence[float], discount: float) -> list[float]:
    out, ahead = [], 0.0
    for reward in reversed(rewards_K):
        ahead = reward + discount * ahead
        out.append(ahead)
    return out[::-1]


def evidence_gains(trajectory: Trajectory) -> list[float]:
    """Per turn, the share of the gold seconds that its tools were the first to look at; from the environment's log."""
    gains, seen, before = [], (), 0.0
    for turn in trajectory.turns:
        seen += tuple(clip for o in turn.observations if o.error is None for clip in o.clips)
        recall = evidence_recall(seen, trajectory.task.evidence)
        gains.append(recall - before)
        before = recall
    return gains

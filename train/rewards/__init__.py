"""Rewards: pure functions over a trajectory, weighed and logged by a `Rubric`; all with formulas in `docs/rewards.md`."""

from .context import Contrast, Reward, RewardContext, RewardError
from .rubric import Part, Rubric, Weighted
from .rubrics import RUBRICS, longvt_rubric, world_rubric

__all__ = [
    "RUBRICS",
    "Contrast",
    "Part",
    "Reward",
    "RewardContext",
    "RewardError",
    "Rubric",
    "Weighted",
    "longvt_rubric",
    "world_rubric",
]

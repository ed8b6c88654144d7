"""Rubric: rewards with weights, and the record of every part.

    scored = world_rubric().score(trajectory, RewardContext(duration_s=1200.0))
    scored.reward_parts        {"answer": 1.0, "evidence_events": 0.2, "format": 0.1, "cost_frames": -0.03}
    scored.reward              their sum

Invariants: `reward_parts` holds the weighted values, under names that occur once, in the order of the rubric; the
reward is their sum and nothing else; a trajectory that ended in an error stays unscored (None, not 0), because our
fault is not the model's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ...core.trajectory import Trajectory
from .context import Reward, RewardContext, RewardError


@dataclass(frozen=True, kw_only=True, slots=True)
class Weighted:
    """A reward and what it counts for; a weight of 0 computes and logs it without paying for it."""

    reward: Reward
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One line of an explanation."""

    name: str
    value: float
    weight: float
    means: str
    """What the reward is, in a sentence."""
    lacks: str | None = None
    """What it would have needed to have a value; it then counts as 0."""

    @property
    def weighted(self) -> float:
        return self.value * self.weight + 0.0  # no negative zero in the logs


@dataclass(frozen=True, kw_only=True, slots=True)
class Rubric:
    """A sum of weighted rewards.

    Raises:
        ValueError: no parts, the same name twice, or a weight that is not finite.
    """

    parts: tuple[Weighted, ...]
    name: str = "rubric"

    def __post_init__(self) -> None:
        names = [part.reward.name for part in self.parts]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a rubric needs rewards of different names; got {names}")
        bad = [p.reward.name for p in self.parts if not math.isfinite(p.weight)]
        if bad:
            raise ValueError(f"the weight of {', '.join(bad)} is not a finite number")

    @classmethod
    def of(cls, name: str, parts: Iterable[tuple[Reward, float]]) -> Rubric:
        """From (reward, weight) pairs."""
        return cls(name=name, parts=tuple(Weighted(reward=r, weight=w) for r, w in parts))

    def explain(self, trajectory: Trajectory, context: RewardContext) -> tuple[Part, ...]:
        """Every part with its value and its weight.

        Raises:
            RewardError: a reward that misses something, or that gave no finite number; trajectory and reward are named.
        """
        return tuple(_part(weighted, trajectory, context) for weighted in self.parts)

    def explain_known(self, trajectory: Trajectory, context: RewardContext) -> tuple[Part, ...]:
        """As `explain`, for reading: what cannot be told from a recorded episode (rollouts beside it, a verdict) is said."""
        return tuple(_part_or_lack(weighted, trajectory, context) for weighted in self.parts)

    def score(self, trajectory: Trajectory, context: RewardContext | None = None) -> Trajectory:
        """The trajectory with its `reward_parts` filled; one that ended in an error comes back unscored.

        Raises:
            RewardError: as for `explain`.
        """
        if trajectory.error is not None or trajectory.stop_reason.is_error:
            return replace(trajectory, reward_parts=None)
        parts = self.explain(trajectory, context or RewardContext())
        return replace(trajectory, reward_parts={part.name: part.weighted for part in parts})


def _part(weighted: Weighted, trajectory: Trajectory, context: RewardContext) -> Part:
    reward = weighted.reward
    where = f"trajectory {trajectory.id}, reward {reward.name}"
    try:
        value = float(reward(trajectory, context))
    except RewardError as error:
        raise RewardError(f"{where}: {error}") from None
    if not math.isfinite(value):
        raise RewardError(f"{where}: it came to {value}, which is no reward")
    return Part(name=reward.name, value=value, weight=weighted.weight, means=_first_sentence(reward))


def _part_or_lack(weighted: Weighted, trajectory: Trajectory, context: RewardContext) -> Part:
    try:
        return _part(weighted, trajectory, context)
    except RewardError as error:
        said, reward = str(error).rpartition(f"reward {weighted.reward.name}: ")[2], weighted.reward
        return Part(name=reward.name, value=0.0, weight=weighted.weight, means=_first_sentence(reward), lacks=said)


def _first_sentence(reward: Reward) -> str:
    said = (type(reward).__doc__ or "").strip().split("\n\n")[0]
    return " ".join(said.split())

"""What an episode cost, and how long it talked.

Costs are negative values with positive weights. By default they are charged on right answers only: charged on wrong
ones too, they teach a group that is all wrong to give up early, and the calls collapse to none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ...core.trajectory import Trajectory
from .context import RewardContext, RewardError, right
from .text import repeated_share


class Spent(str, Enum):
    """What is counted: fields of `Usage` and of `Budget`."""

    FRAMES = "frames"
    SAMPLED_TOKENS = "sampled_tokens"
    CONTEXT_TOKENS = "context_tokens"
    TURNS = "turns"
    TOOL_CALLS = "tool_calls"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """-min(1, spent / limit), in [-1, 0]; 0 for a wrong answer unless `always`.

    spent: frames, tokens, turns or calls from the environment's own bill (`Usage`). limit: `limit`, or that of the
    episode's budget. Ours.
    """

    spent: Spent = Spent.FRAMES
    limit: int | None = None
    always: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"the limit of a cost must be at least 1; got {self.limit}")

    @property
    def name(self) -> str:
        return f"cost_{self.spent.value}"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        limit = self.limit or getattr(trajectory.budget, self.spent.value)
        if not limit:
            raise RewardError(f"the budget sets no limit of {self.spent.value}: give the cost a limit of its own")
        if not self.always and not right(trajectory.task, trajectory.answer):
            return 0.0
        return -min(1.0, getattr(trajectory.usage, self.spent.value) / limit)


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftOverlong:
    """0 up to L - C sampled tokens, then falling to -1 at L, and -1 beyond; in [-1, 0].

    ((L - C) - n) / C between; n: tokens that the policy sampled in all turns. L: `max_tokens`, or the budget's; C: a
    share of L. Source: DAPO, eq. 13, "soft overlong punishment".
    """

    max_tokens: int | None = None
    cache_share: float = 0.2
    name: str = "soft_overlong"

    def __post_init__(self) -> None:
        if not 0 < self.cache_share <= 1 or (self.max_tokens is not None and self.max_tokens < 1):
            raise ValueError(
                f"need 0 < cache_share <= 1 and max_tokens >= 1; got {self.cache_share}, {self.max_tokens}"
            )

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        longest = self.max_tokens or trajectory.budget.sampled_tokens
        if not longest:
            raise RewardError("the budget sets no limit of sampled tokens: give soft_overlong a max_tokens")
        return soft_overlong(sum(trajectory.loss_mask), longest, self.cache_share * longest)


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthWindow:
    """1 where the answer is right and between `low` and `high` tokens were sampled, else 0.

    Source: Video-R1 `grpo.py` (weight 0.2, 320 to 512 tokens), there also only where two rollouts of the group are right.
    """

    low: int = 320
    high: int = 512
    name: str = "length_window"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        return float(right(trajectory.task, trajectory.answer) and self.low <= sum(trajectory.loss_mask) <= self.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Repetition:
    """Minus the share of n-grams of sampled tokens that repeat an earlier one, in (-1, 0].

    -(1 - unique / all), over token ids, no n-gram across turns. Source: Yeo et al. 2025 (2502.03373), appendix C.2.
    """

    n: int = 6
    name: str = "repetition"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        said = [t.completion.token_ids for t in trajectory.turns if not t.completion.forced]
        return -repeated_share(said, self.n) + 0.0


def soft_overlong(tokens: int, longest: float, cache: float) -> float:
    """DAPO eq. 13 for `tokens` of at most `longest`, the last `cache` of which are punished; in [-1, 0]."""
    free = longest - cache
    return 0.0 if tokens <= free else max(-1.0, (free - tokens) / cache)

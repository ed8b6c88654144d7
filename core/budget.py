"""Budget: what an episode may spend. Usage: what it did spend. Every limit is hard, and None means no limit.

Usage counts reused prompt tokens apart from prefilled ones, so a bill shows what a cache saved.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from .nouns import StopReason


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What was spent. Usages of several episodes sum, field by field; of the longest context the longer one stays."""

    turns: int = 0
    tool_calls: int = 0
    frames: int = 0
    context_tokens: int = 0
    """Tokens of the longest context that the policy saw (prompt and completions)."""
    sampled_tokens: int = 0
    prefill_tokens: int = 0
    """Prompt tokens that were really computed."""
    reused_tokens: int = 0
    """Prompt tokens whose attention cache was reused."""
    wall_s: float = 0.0
    model_calls: int = 0
    """Completions asked of the policy: turns, captions, and whatever a strategy asks beside them."""

    def __add__(self, other: Usage) -> Usage:
        total = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Usage(**{**total, "context_tokens": max(self.context_tokens, other.context_tokens)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Hard limits of one episode, or of all that a test-time scaling strategy does for one question. There, `turns` and
    `context_tokens` still bound each episode by itself, and all others bound the sum.

    Raises:
        ValueError: when a limit is below zero, or no turn is allowed.
    """

    turns: int | None = 8
    tool_calls: int | None = 12
    frames: int | None = 128
    context_tokens: int | None = 8192
    sampled_tokens: int | None = 4096
    wall_s: float | None = 300.0
    model_calls: int | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None and not value >= 0:  # NaN is refused too: it would be no limit at all
                raise ValueError(f"budget {f.name} must be 0 or more, or None for no limit; got {value}")
        if self.turns is not None and self.turns < 1:
            raise ValueError(f"budget turns must be at least 1: the answer itself is a turn; got {self.turns}")

    def exceeded(self, usage: Usage) -> StopReason | None:
        """The first limit that `usage` has reached, or None. Reaching is enough: nothing more may be spent."""
        reached: tuple[tuple[str, StopReason], ...] = (
            ("wall_s", StopReason.TIMEOUT),
            ("context_tokens", StopReason.CONTEXT_FULL),
            ("sampled_tokens", StopReason.LENGTH),
            ("turns", StopReason.MAX_TURNS),
            ("model_calls", StopReason.MAX_TURNS),
            ("tool_calls", StopReason.MAX_TOOL_CALLS),
            ("frames", StopReason.MAX_FRAMES),
        )
        for name, reason in reached:
            limit = getattr(self, name)
            if limit is not None and getattr(usage, name) >= limit:
                return reason
        return None

    def left(self, usage: Usage, name: str) -> float:
        """How much of the limit called `name` is left; infinity where there is none."""
        limit = getattr(self, name)
        return float("inf") if limit is None else max(0.0, limit - getattr(usage, name))

"""Allowance: what the next step may spend, so that no limit of the budget is ever passed and an answer is still affordable.

Every ordinary turn leaves a reserve for the forced answer: tokens for its opening and its text, and a tenth of the time
(10 s at most). Pure arithmetic over `Budget` and `Usage`. Frames and tool calls running out does not end an episode by itself:
the model still thinks about what it saw, and only its next call is refused. Turns, tokens, context and time do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..core.budget import Budget, Usage
from ..core.nouns import StopReason

ANSWER_TOKENS = 64
"""The most tokens of a forced answer."""
MIN_TURN_TOKENS = 16
"""A turn that may say less than this is not worth starting."""
MAX_RESERVE_S = 10.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """Args: opening_tokens is the length of the forced opening of an answer, notice_tokens that of a message that says so."""

    budget: Budget
    opening_tokens: int
    notice_tokens: int

    def answer_reserve(self) -> int:
        """Context tokens kept free of ordinary turns and of what tools show."""
        return self.notice_tokens + self.opening_tokens + ANSWER_TOKENS

    def wall_reserve_s(self) -> float:
        return 0.0 if self.budget.wall_s is None else min(MAX_RESERVE_S, 0.1 * self.budget.wall_s)

    def must_answer(self, usage: Usage, context: int) -> StopReason | None:
        """The limit because of which no ordinary turn may start, or None. `context` is the length of the next prompt."""
        left = self.budget.left
        if left(usage, "wall_s") <= self.wall_reserve_s():
            return StopReason.TIMEOUT
        if self._context_left(context) - self.answer_reserve() < MIN_TURN_TOKENS:
            return StopReason.CONTEXT_FULL
        if left(usage, "sampled_tokens") - ANSWER_TOKENS < MIN_TURN_TOKENS:
            return StopReason.LENGTH
        # The last turn is the answer's. An only turn is the model's own: it gets to think first.
        if min(left(usage, "turns"), left(usage, "model_calls")) <= (usage.model_calls > 0):
            return StopReason.MAX_TURNS
        return None

    def turn_tokens(self, usage: Usage, context: int, most: int) -> int:
        """How many tokens an ordinary turn may sample."""
        sampled = self.budget.left(usage, "sampled_tokens") - ANSWER_TOKENS
        return int(min(most, sampled, self._context_left(context) - self.answer_reserve()))

    def answer_tokens(self, usage: Usage, context: int) -> int:
        """How many tokens a forced answer may sample after a prompt of `context`; 0 when it cannot be had."""
        left = self.budget.left
        if min(left(usage, "turns"), left(usage, "model_calls")) < 1 or left(usage, "wall_s") <= 0:
            return 0
        return max(0, int(min(ANSWER_TOKENS, left(usage, "sampled_tokens"), self._context_left(context))))

    def captions(self, usage: Usage) -> int:
        """How many frames may be described: each takes a call of the policy, and the answer needs one."""
        return int(min(1 << 30, max(0.0, self.budget.left(usage, "model_calls") - 1)))

    def turn_seconds(self, usage: Usage) -> float | None:
        """Seconds an ordinary turn, or the tools of a turn, may take; None without a limit."""
        if self.budget.wall_s is None:
            return None
        return max(0.0, self.budget.left(usage, "wall_s") - self.wall_reserve_s())

    def answer_seconds(self, usage: Usage) -> float | None:
        return None if self.budget.wall_s is None else self.budget.left(usage, "wall_s")

    def frames(self, usage: Usage, context: int, frame_tokens: int) -> int:
        """How many more frames may be shown after `context` tokens, if each takes `frame_tokens`."""
        # The division comes last: infinity divided with // is not a number.
        room = min(1 << 40, max(0, self._context_left(context) - self.answer_reserve()))
        return int(min(1 << 30, self.budget.left(usage, "frames"), room // max(1, frame_tokens)))

    def fits(self, context: int) -> bool:
        """Does a prompt of so many tokens leave room for a forced answer?"""
        return self._context_left(context) >= self.opening_tokens + ANSWER_TOKENS

    def _context_left(self, context: int) -> float:
        return math.inf if self.budget.context_tokens is None else self.budget.context_tokens - context


def shares(total: int, parts: int) -> list[int]:
    """`total` split over `parts` as evenly as whole numbers allow, the larger ones first."""
    return [total // parts + (i < total % parts) for i in range(parts)]


def spend(usage: Usage, **more: float) -> Usage:
    """`usage` with some fields raised; `context` replaces the longest context when it is longer."""
    context = int(more.pop("context", 0))
    raised = {name: getattr(usage, name) + value for name, value in more.items()}
    return replace(usage, context_tokens=max(usage.context_tokens, context), **raised)

"""Guards: a run that goes wrong stops, and says why, before it spoils its checkpoint.

    log-prob gap    what the trainer computes is not what the sampler said: wrong frames, positions, temperature, weights
    not a number    in the loss or a gradient
    no tools        the policy stopped calling them (ParaVT's "tool necessity gap")
    no format       episodes no longer end in an answer of their own, or the reward for the format is gone
    no rollouts     every one of them failed

The first two are checked before the optimiser moves; the others look at the mean of the last steps against the first
ones. All processes see the same figures, so all of them stop.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...core.errors import PlayheadError

FORMAT = "reward/format"
WATCHED = ("calls", "answered", FORMAT)


class RunStopped(PlayheadError):
    """Training was stopped by a guard; the last checkpoint is as it was."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When to stop.

    Raises:
        ValueError: a share outside [0, 1], or fewer than one step of patience.
    """

    logprob_gap: float = 0.05
    """Mean absolute difference (nats) between sampler and trainer at the same weights. float32 gives 1e-6, bf16 1e-3."""
    calls_left: float = 0.1
    """Share of the first steps' tool calls per rollout that must be left; of their reward for the format, too."""
    answered: float = 0.2
    """Share of rollouts that must end in an answer of their own, where the first steps' did."""
    patience: int = 8
    """Steps over which the last two are averaged; no verdict before twice as many."""

    def __post_init__(self) -> None:
        if not (0 <= self.calls_left <= 1 and 0 <= self.answered <= 1 and self.patience >= 1 and self.logprob_gap > 0):
            raise ValueError(f"limits need shares in [0, 1], a positive gap and a patience of 1 or more; got {self}")


class Guards:
    """Watches a run. What it has seen is part of a checkpoint, so that a resumed run is held to its beginning."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._first: dict[str, list[float]] = {name: [] for name in WATCHED}
        self._last = {name: deque[float](maxlen=self.limits.patience) for name in self._first}

    def state(self) -> dict[str, list[list[float]]]:
        """What was seen so far, as plain JSON."""
        return {name: [self._first[name], [*self._last[name]]] for name in self._first}

    def load(self, state: Mapping[str, Sequence[Sequence[float]]]) -> None:
        """Go on from `state`; what it does not hold begins anew."""
        for name in self._first.keys() & state.keys():
            first, last = state[name]
            self._first[name] = [float(v) for v in first]
            self._last[name].extend(float(v) for v in last)

    def before_update(self, step: int, gap: float, finite: bool) -> None:
        """Raises: RunStopped: the log-prob gap is too wide, or something is not a number."""
        if not finite or not math.isfinite(gap):
            raise RunStopped(
                f"step {step}: the loss is not a number. Lower the learning rate or the gradient norm's limit, and look at the "
                "rewards of this step; the last checkpoint is sound"
            )
        if gap > self.limits.logprob_gap:
            raise RunStopped(
                f"step {step}: sampler and trainer differ by {gap:.2g} nats a token (limit {self.limits.logprob_gap:.2g}). "
                "They do not see the same tokens, frames, temperature or weights; training on this would teach noise"
            )

    def gradient(self, step: int, norm: float) -> None:
        """Raises: RunStopped: the gradient is not a number."""
        if not math.isfinite(norm):
            raise RunStopped(f"step {step}: the gradient is not a number; nothing was updated. Lower the learning rate")

    def after_rollouts(self, step: int, figures: Mapping[str, float], error: str = "") -> None:
        """
        Args:
            error: of the first rollout that failed.

        Raises:
            RunStopped: nothing came back, or the policy lost its tools or its format.
        """
        if not figures.get("rollouts/sound", 0):
            raise RunStopped(
                f"step {step}: all rollouts failed; failures.jsonl in the run's folder has their errors, the first: {error}"
            )
        for name in self._first:
            value = figures.get(name, 0.0)
            if len(self._first[name]) < self.limits.patience:
                self._first[name].append(value)
            else:
                self._last[name].append(value)
        self._collapse(
            step, "calls", self.limits.calls_left, "it stopped calling tools", "a reward that needs evidence"
        )
        self._collapse(
            step, "answered", self.limits.answered, "it no longer ends in an answer", "a reward for the format"
        )
        self._collapse(step, FORMAT, self.limits.calls_left, "it lost its format", "a greater weight for the format")

    def _collapse(self, step: int, name: str, share: float, what: str, remedy: str) -> None:
        last, first = self._last[name], self._first[name]
        if len(last) < self.limits.patience:
            return
        now, then = sum(last) / len(last), sum(first) / len(first)
        floor = share if name == "answered" else share * then
        if then >= floor and then > 0 and now < floor:
            raise RunStopped(
                f"step {step}: {what} ({name} {then:.2f} a rollout in the first {len(first)} steps, {now:.2f} in the last "
                f"{len(last)}). Try {remedy}, a lower learning rate or a KL term, from an earlier checkpoint"
            )

"""Verdicts: what has to be asked of a model before rewards can be computed, as an async step of its own.

    context = await with_verdicts(trajectory, context, verifier=answer_again, judge=ask_the_judge)

So rewards stay pure, and a group's verdicts are gathered at once. A verifier that fails is an error of the episode's
scoring, never a silent 0 (a judge that is down makes LongVT's scores 0 without a word).
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Protocol

from ...core.nouns import Answer
from ...core.scoring import score_answer
from ...core.trajectory import Trajectory
from .context import RewardContext, RewardError

VERDICT_TIMEOUT_S = 120.0


class Verifier(Protocol):
    """Answers the task of a trajectory again, from what it looked at alone (`Trajectory.evidence_seen`)."""

    async def __call__(self, trajectory: Trajectory) -> Answer | None: ...


class Judge(Protocol):
    """Scores an answer in free words against the gold one, in [0, 1]."""

    async def __call__(self, trajectory: Trajectory) -> float: ...


async def with_verdicts(
    trajectory: Trajectory,
    context: RewardContext,
    *,
    verifier: Verifier | None = None,
    judge: Judge | None = None,
    timeout_s: float = VERDICT_TIMEOUT_S,
) -> RewardContext:
    """The context with `verified` and `judged` filled by those who were asked.

    Nothing is asked about a trajectory that looked at nothing: its answer cannot be verified, which is 0.

    Raises:
        RewardError: no verdict in time, or a judge's score outside [0, 1].
    """
    verified, judged = context.verified, context.judged
    try:
        async with asyncio.timeout(timeout_s):
            if verifier is not None:
                again = await verifier(trajectory) if trajectory.evidence_seen else None
                verified = score_answer(trajectory.task, again)
            if judge is not None:
                judged = await judge(trajectory)
    except TimeoutError:
        raise RewardError(f"trajectory {trajectory.id}: no verdict after {timeout_s:.0f} s") from None
    if judged is not None and not (math.isfinite(judged) and 0 <= judged <= 1):
        raise RewardError(f"trajectory {trajectory.id}: the judge said {judged}, not a score in [0, 1]")
    return replace(context, verified=verified, judged=judged)

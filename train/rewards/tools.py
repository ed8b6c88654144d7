"""Tools: paid for what they showed, never for having been called.

ParaVT pays 0.1 for a call that parses and 0.3 for a `<tool_response>` in the text, verl users pay 0.1 a call: models
learn to call for the sake of it, or to write the response themselves. Here a call counts by its observation, and only
under a right answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ...core.clip import Clip
from ...core.nouns import Observation, ToolCall
from ...core.scoring import evidence_recall
from ...core.trajectory import Trajectory
from .context import RewardContext, RewardError, right

CITED_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolUse:
    """1[right] * (calls that bear on the answer / calls that were made), in [0, 1].

    A call bears on the answer when it looked into the gold evidence; where none is known, when it looked at half or
    more of what the answer cites (so that citing the whole video does not make every call matter). Calls that failed
    count as made. Source: LongVT `tool_use_reward`, a bonus under a right answer, there for a tag in the text.
    """

    name: str = "tool_use"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        made = trajectory.observations
        if not made or not right(trajectory.task, trajectory.answer):
            return 0.0
        cited = trajectory.answer.evidence if trajectory.answer else ()
        return sum(bears(o, trajectory.task.evidence, cited) for o in made) / len(made)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolNecessity:
    """1[right] * ((1 - d) where tools were used, d where not), in [0, 1]; d: the pass rate of the same task without tools.

    Pays for tools on the tasks that need them and for doing without on those that do not. Names the gap that ParaVT
    calls "tool necessity"; the formula is ours.
    """

    name: str = "tool_necessity"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        d = context.solved_without_tools
        if d is None:
            raise RewardError("tool necessity needs the pass rate without tools in the context")
        if not right(trajectory.task, trajectory.answer):
            return 0.0
        used = any(o.error is None for o in trajectory.observations)
        return 1.0 - d if used else d


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatedCalls:
    """Minus the share of calls that ask for exactly what an earlier call of the episode asked for, in [-1, 0]. Ours."""

    name: str = "repeated_calls"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        calls = [canonical(call) for turn in trajectory.turns for call in turn.tool_calls]
        return len(set(calls)) / len(calls) - 1.0 if calls else 0.0


def bears(observation: Observation, gold: tuple[Clip, ...], cited: tuple[Clip, ...]) -> bool:
    """Did this observation look into the gold evidence; where none is known, at half or more of what is cited?"""
    if observation.error is not None:
        return False
    if gold:
        return any(seen.overlap_s(clip) > 0 for seen in observation.clips for clip in gold)
    return evidence_recall(observation.clips, cited) >= CITED_SHARE


def canonical(call: ToolCall) -> str:
    """Name and arguments, whatever their order and spacing."""
    try:
        arguments = json.dumps(json.loads(call.arguments_json), sort_keys=True)
    except (ValueError, RecursionError):
        arguments = call.arguments_json
    return f"{call.name} {arguments}"

"""Branch: go on from the middle of an episode. States for `Manner.start`, made of the turns that an episode recorded.

History stays token for token what the policy saw, so an engine finds its attention cache and computes only what is new. A
turn that we put in the model's mouth is marked as forced: it is never trained on.
"""

from __future__ import annotations

import json
from dataclasses import replace

from ...core.budget import Usage
from ...core.clip import Clip
from ...core.nouns import Completion
from ...core.policy import Renderer
from ...core.trajectory import Trajectory, Turn
from ..episode import Pending, State, fresh_state


def after(trajectory: Trajectory, turn: int) -> State:
    """Where the episode stood when the policy was about to speak turn `turn` (0 is the first)."""
    following = trajectory.turns[turn]
    pending = Pending(
        token_ids=following.context_ids, frames=following.context_frames, messages=following.context_messages
    )
    return _state(trajectory, trajectory.turns[:turn], pending)


def instead(trajectory: Trajectory, turn: int, text: str, renderer: Renderer) -> State | None:
    """The same, with `text` as what the policy said in that turn; its calls are run next. None where it calls nothing."""
    parsed = renderer.parse(text, turn)
    if not parsed.tool_calls:
        return None
    said = Completion(token_ids=renderer.encode(text), text=text, forced=True)
    forged = replace(
        trajectory.turns[turn], completion=said, thought=parsed.thought, tool_calls=parsed.tool_calls, observations=()
    )
    return _state(trajectory, (*trajectory.turns[:turn], forged), Pending())


def zooming(trajectory: Trajectory, clip: Clip, fps: float, renderer: Renderer) -> State | None:
    """The episode at its first zoom, with `clip` zoomed into instead; None where it never zoomed."""
    for turn in trajectory.turns:
        if any(call.name == "temporal_zoom" for call in turn.tool_calls):
            call = {"start_s": round(clip.start_s, 1), "end_s": round(clip.end_s, 1), "fps": fps}
            head = turn.completion.text.partition("<tool_call>")[0]
            body = json.dumps({"name": "temporal_zoom", "arguments": call})
            return instead(trajectory, turn.index, f"{head}<tool_call>\n{body}\n</tool_call>", renderer)
    return None


def _state(trajectory: Trajectory, turns: tuple[Turn, ...], pending: Pending) -> State:
    state = fresh_state(trajectory.task, trajectory.seed)
    return State(**{**state, "turns": turns, "pending": pending, "usage": Usage()})

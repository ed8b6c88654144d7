"""Timeline: what an episode looked at, step by step, as lanes of marks over the length of the video. Pure, no HTML.

A lane is one thing that was done: the skim, one tool call, the answer. A mark is a stretch of seconds in a lane: a frame
that was shown (as wide as its place on screen allows), or a stretch that was looked through.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import TypeGuard

from ..core.clip import Clip, merge_clips
from ..core.nouns import Frame, Observation, ToolCall
from ..core.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A stretch in seconds; `frame` where it stands for one frame that was shown."""

    start_s: float
    end_s: float
    frame: Frame | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """One thing that was done. `kind` is "skim", "answer" or the name of the tool; `turn` is None for the skim."""

    kind: str
    label: str
    marks: tuple[Mark, ...]
    turn: int | None = None
    call: ToolCall | None = None
    observation: Observation | None = None


def lanes(trajectory: Trajectory) -> list[Lane]:
    """The lanes of an episode in the order in which they happened."""
    out = [Lane(kind="skim", label="skim", marks=_frame_marks(trajectory.turns[0].context_frames))] if trajectory.turns else []
    for turn in trajectory.turns:
        seen = {o.tool_call_id: o for o in turn.observations}
        out.extend(_call_lane(turn.index, call, seen.get(call.id)) for call in turn.tool_calls)
    if trajectory.answer is not None:
        marks = tuple(Mark(start_s=c.start_s, end_s=c.end_s) for c in trajectory.answer.evidence)
        out.append(Lane(kind="answer", label="cited", marks=marks, turn=len(trajectory.turns) - 1))
    return out


def _call_lane(turn: int, call: ToolCall, observation: Observation | None) -> Lane:
    marks: tuple[Mark, ...] = ()
    if observation is not None and observation.error is None:
        stretches = tuple(Mark(start_s=c.start_s, end_s=c.end_s) for c in merge_clips(observation.clips))
        marks = (*stretches, *_frame_marks(observation.frames))
    return Lane(
        kind=call.name, label=call_label(call), marks=marks, turn=turn, call=call, observation=observation
    )


def _frame_marks(frames: tuple[Frame, ...]) -> tuple[Mark, ...]:
    return tuple(Mark(start_s=f.timestamp_s, end_s=f.timestamp_s, frame=f) for f in frames)


def call_label(call: ToolCall) -> str:
    """A call in a few words: what it looked for or where; the raw text where that cannot be told."""
    try:
        arguments = json.loads(call.arguments_json)
    except json.JSONDecodeError:
        return f"{call.name} {call.arguments_json:.60}"
    if not isinstance(arguments, dict):
        return f"{call.name} {call.arguments_json:.60}"
    if call.name == "search_clips" and "query" in arguments:
        return f"search: {arguments['query']}"
    start_s, end_s = arguments.get("start_s"), arguments.get("end_s")
    if call.name == "temporal_zoom" and _is_time(start_s) and _is_time(end_s):
        return f"zoom: {clock(start_s)} to {clock(end_s)}"
    return f"{call.name}: " + ", ".join(str(v) for v in arguments.values())


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and isfinite(value)  # JSON lets a model say NaN


def duration_s(trajectory: Trajectory) -> float:
    """The length of the line: the video's where the first message states it, else the last second that is named."""
    stated = _stated_duration(trajectory)
    if stated is not None:
        return stated
    ends = [m.end_s for lane in lanes(trajectory) for m in lane.marks] + [c.end_s for c in trajectory.task.evidence]
    return max(ends, default=1.0) or 1.0


def _stated_duration(trajectory: Trajectory) -> float | None:
    for message in trajectory.messages[:2]:
        words = message.text.split()
        if words[:2] == ["Video", "of"]:
            try:
                return float(words[2])
            except (IndexError, ValueError):
                return None
    return None


def lens(trajectory: Trajectory) -> tuple[float, float] | None:
    """The stretch around gold and cited seconds worth a closer look, or None where it is most of the video anyway."""
    cited = trajectory.answer.evidence if trajectory.answer else ()
    clips: tuple[Clip, ...] = (*trajectory.task.evidence, *cited)
    total = duration_s(trajectory)
    if not clips:
        return None
    start_s, end_s = min(c.start_s for c in clips), max(c.end_s for c in clips)
    margin = max(12.0, 0.6 * (end_s - start_s))
    start_s, end_s = max(0.0, start_s - margin), min(total, end_s + margin)
    return (start_s, end_s) if end_s - start_s < 0.4 * total else None


def ticks(start_s: float, end_s: float, about: int = 8) -> Iterator[float]:
    """Round times, about so many, inside [start_s, end_s]."""
    span = max(end_s - start_s, 1e-6)
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
    step = next((s for s in steps if span / s <= about), 3600 * max(1, round(span / 3600 / about)))
    t = -(-start_s // step) * step
    while t <= end_s:
        yield t
        t += step


def clock(t_s: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    whole = round(t_s)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"

"""TaskResult: what one question of a run came to, a flat record that fits on one line of `results.jsonl`.

Everything is read from the log of the trajectory, or of all trajectories of a strategy that made several. `recall` counts
the gold seconds whose frames a tool showed to the model (an episode without tools looked at half a second to each side of
its uniform frames); `spans_seen` counts the gold spans, one for each event that the answer rests on, of which a frame was
shown at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.budget import Usage
from ..core.clip import Clip, merge_clips
from ..core.nouns import Answer, StopReason, Task
from ..core.scoring import evidence_recall, is_right, score_answer, temporal_iou
from ..core.trajectory import Trajectory

if TYPE_CHECKING:
    from ..agent.scaling.strategy import Scaled

SHOWN_S = 1.0
"""How many seconds one uniform frame counts as looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskResult:
    """One task, asked once. `score` is 1 or 0, for "when" the temporal IoU; `recall` is None without gold evidence."""

    task_id: str
    kind: str
    video: str
    score: float
    right: bool
    gold: str | None = None
    answer: str | None = None
    cited: tuple[str, ...] = ()
    """The evidence that the answer cites, as "start-end" in seconds."""
    cited_iou: float | None = None
    """Temporal IoU of the cited with the gold evidence."""
    recall: float | None = None
    """Share of the gold seconds that were looked at."""
    spans_seen: float | None = None
    """Share of the gold spans of which the model was shown at least one frame."""
    turns: int = 0
    calls: int = 0
    malformed: int = 0
    frames: int = 0
    context_tokens: int = 0
    sampled_tokens: int = 0
    prefill_tokens: int = 0
    reused_tokens: int = 0
    wall_s: float = 0.0
    stop_reason: str = ""
    error: str | None = None
    runs: int = 1
    """Episodes (and single completions) that were made for it."""
    model_calls: int = 0
    confidence: float | None = None


def malformed_calls(trajectory: Trajectory) -> int:
    """Calls that could not be done as the model wrote them, and turns that held neither a call nor an answer."""
    refused = sum(o.error is not None for o in trajectory.observations)
    lost = sum(not t.tool_calls and not t.completion.forced for t in trajectory.turns[:-1])
    return refused + lost + (trajectory.stop_reason.value == "parse_error")


def looked_at(trajectory: Trajectory, with_tools: bool) -> tuple[Clip, ...]:
    """The stretches of video whose frames the model was shown (by its tools, where it had some)."""
    if with_tools:
        return trajectory.evidence_seen
    half = SHOWN_S / 2
    return tuple(
        Clip(video_id=f.video_id, start_s=max(0.0, f.timestamp_s - half), end_s=f.timestamp_s + half)
        for f in trajectory.frames
    )


def spans_seen(task: Task, runs: Sequence[Trajectory]) -> float | None:
    """Share of the gold spans that hold the time of a frame which the model was shown; None without gold evidence."""
    times = {f.timestamp_s for t in runs for f in t.frames}
    seen = [any(clip.contains(t) for t in times) for clip in task.evidence]
    return sum(seen) / len(seen) if seen else None


def result_of(task: Task, trajectory: Trajectory, *, with_tools: bool = True) -> TaskResult:
    """The record of one episode; a trajectory that ended in an error is wrong, and says why."""
    calls = sum(len(t.tool_calls) for t in trajectory.turns)
    return _record(
        task, trajectory.answer, trajectory.usage, (trajectory,), trajectory.stop_reason, trajectory.error, calls, with_tools
    )


def result_of_scaled(task: Task, scaled: Scaled, *, with_tools: bool = True) -> TaskResult:
    """The record of all that a strategy did for one question. Seen is what any of its runs saw."""
    runs, usage = scaled.trajectories, scaled.usage
    # A branch repeats the turns that it goes on from, and only the usage knows which of them were paid.
    calls = sum(len(t.tool_calls) for t in runs[0].turns) if len(runs) == 1 else usage.tool_calls
    return _record(task, scaled.answer, usage, runs, scaled.stop_reason, scaled.error, calls, with_tools)


def _record(
    task: Task,
    answer: Answer | None,
    usage: Usage,
    runs: Sequence[Trajectory],
    stop: StopReason,
    error: str | None,
    calls: int,
    with_tools: bool,
) -> TaskResult:
    cited = answer.evidence if answer else ()
    looked = merge_clips(tuple(c for t in runs for c in looked_at(t, with_tools)))
    return TaskResult(
        task_id=task.id,
        kind=task.kind,
        video=task.video.rsplit("/", 1)[-1],
        score=score_answer(task, answer),
        right=is_right(task, answer),
        gold=task.answer,
        answer=answer.text if answer else None,
        cited=tuple(f"{c.start_s:.1f}-{c.end_s:.1f}" for c in cited),
        cited_iou=temporal_iou(cited, task.evidence) if task.evidence else None,
        recall=evidence_recall(looked, task.evidence) if task.evidence else None,
        spans_seen=spans_seen(task, runs),
        turns=usage.turns,
        calls=calls,
        malformed=sum(map(malformed_calls, runs)),
        frames=usage.frames,
        context_tokens=usage.context_tokens,
        sampled_tokens=usage.sampled_tokens,
        prefill_tokens=usage.prefill_tokens,
        reused_tokens=usage.reused_tokens,
        wall_s=round(usage.wall_s, 3),
        stop_reason=stop.value,
        error=error,
        runs=len(runs),
        model_calls=usage.model_calls,
        confidence=answer.confidence if answer else None,
    )

"""TaskResult: what one episode of a run came to, a flat record that fits on one line of `results.jsonl`.

Everything is read from the trajectory's own log. `recall` counts the gold seconds whose frames a tool showed to the model
(an episode without tools looked at half a second to each side of its uniform frames); `spans_seen` counts the gold spans,
one for each event that the answer rests on, of which a frame was shown at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.clip import Clip
from ..core.nouns import Task
from ..core.scoring import evidence_recall, is_right, score_answer, temporal_iou
from ..core.trajectory import Trajectory

SHOWN_S = 1.0
"""How many seconds one uniform frame counts as looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskResult:
    """One task, one episode. `score` is 1 or 0, for "when" the temporal IoU; `recall` is None without gold evidence."""

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


def spans_seen(task: Task, trajectory: Trajectory) -> float | None:
    """Share of the gold spans that hold the time of a frame which the model was shown; None without gold evidence."""
    times = [f.timestamp_s for f in trajectory.frames]
    seen = [any(clip.contains(t) for t in times) for clip in task.evidence]
    return sum(seen) / len(seen) if seen else None


def result_of(task: Task, trajectory: Trajectory, *, with_tools: bool = True) -> TaskResult:
    """The record of one episode; a trajectory that ended in an error is wrong, and says why."""
    answer, usage = trajectory.answer, trajectory.usage
    cited = answer.evidence if answer else ()
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
        recall=evidence_recall(looked_at(trajectory, with_tools), task.evidence) if task.evidence else None,
        spans_seen=spans_seen(task, trajectory),
        turns=len(trajectory.turns),
        calls=sum(len(t.tool_calls) for t in trajectory.turns),
        malformed=malformed_calls(trajectory),
        frames=usage.frames,
        context_tokens=usage.context_tokens,
        sampled_tokens=usage.sampled_tokens,
        prefill_tokens=usage.prefill_tokens,
        reused_tokens=usage.reused_tokens,
        wall_s=round(usage.wall_s, 3),
        stop_reason=trajectory.stop_reason.value,
        error=trajectory.error,
    )


def failed(task: Task, reason: str) -> TaskResult:
    """The record of an episode that left no trajectory: our fault or the file's, and wrong all the same."""
    return TaskResult(
        task_id=task.id,
        kind=task.kind,
        video=task.video.rsplit("/", 1)[-1],
        score=0.0,
        right=False,
        gold=task.answer,
        recall=0.0 if task.evidence else None,
        spans_seen=0.0 if task.evidence else None,
        stop_reason="error",
        error=reason,
    )

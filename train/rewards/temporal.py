"""When? Rewards for intervals of time.

All are functions of two sets of clips, the predicted and the gold one. None pays for an empty prediction
(VideoChat-R1's IoU of two empty lists is 1), and none pays for a span that is inflated until it covers everything:
that is what recall alone would do, and what the plain GIoU does half (see `near_miss`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from ...core.clip import Clip, merge_clips
from ...core.scoring import parse_spans, temporal_iou
from ...core.trajectory import Trajectory
from .context import RewardContext, RewardError


class Spans(str, Enum):
    """Which spans of an answer are meant."""

    EVIDENCE = "evidence"
    """What the answer cites as proof."""
    ANSWER = "answer"
    """The answer itself; only for tasks of kind "when"."""


def predicted_spans(trajectory: Trajectory, of: Spans, duration_s: float | None = None) -> tuple[Clip, ...]:
    """The spans that the answer gives, in the video of the gold evidence; none where the task does not ask for them."""
    task, answer = trajectory.task, trajectory.answer
    if answer is None or not task.evidence:
        return ()
    if of is Spans.EVIDENCE:
        return answer.evidence
    return parse_spans(answer.text, task.evidence[0].video_id, duration_s) if task.kind == "when" else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalIoU:
    """Intersection over union of the spans with the gold ones, both as sets of seconds, in [0, 1].

    |P and G| / |P or G|; several segments count by their union. Source: VideoChat-R1 `grpo_tasks.py`, multi-segment IoU; but
    two empty sets score 0 and the union is a true union, not the hull that Time-R1 and LongVT divide by.
    """

    of: Spans = Spans.EVIDENCE
    name: str = "temporal_iou"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        return temporal_iou(predicted_spans(trajectory, self.of, context.duration_s), trajectory.task.evidence)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimestampIoU:
    """IoU * (1 - |ds|/D) * (1 - |de|/D): the IoU, and less the farther start and end are off, in [0, 1].

    ds, de: distance of the first start and of the last end from the gold ones; D: duration of the video. Source: Time-R1,
    "timestamp-aware IoU" (`main.py::iou_timestamp_reward`, there called iou_v2).
    """

    of: Spans = Spans.EVIDENCE
    name: str = "timestamp_iou"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        if context.duration_s is None:
            raise RewardError("the timestamp-aware IoU needs the duration of the video in the context")
        spans = predicted_spans(trajectory, self.of, context.duration_s)
        return timestamp_iou(spans, trajectory.task.evidence, context.duration_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class NearMiss:
    """A generalised IoU in [0, 1] that still rises when a span that misses comes closer; see `near_miss`.

    Several segments are matched one to one, and what is too much or too little scores 0 (`matched`). Source: EIoU (Zhang et
    al. 2022) in one dimension; the matching is ours.
    """

    of: Spans = Spans.EVIDENCE
    name: str = "near_miss"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        return matched(predicted_spans(trajectory, self.of, context.duration_s), trajectory.task.evidence, near_miss)


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalProximity:
    """exp(-d^2 / 2 s^2) for each cited span, d its distance from the gold one, in [0, 1]; s tightens with training.

    s = 4 (1 - progress) until three quarters of training, then 1. Source: Open-o3-Video, "adaptive temporal proximity"
    (`reward_func.py::thk_temporal_point_reward`), there for points in time against key frames. Here d is the
    Hausdorff distance of two spans, max(|ds|, |de|), so that a span cannot buy nearness by being long; and spans are
    matched one to one with the gold ones, so that citing the surest of three moments does not pay for all.
    """

    of: Spans = Spans.EVIDENCE
    name: str = "temporal_proximity"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        sigma = proximity_sigma(context.progress)
        spans = predicted_spans(trajectory, self.of, context.duration_s)
        return matched(
            spans, trajectory.task.evidence, lambda p, g: math.exp(-(hausdorff_s(p, g) ** 2) / (2 * sigma**2))
        )


def timestamp_iou(predicted: Sequence[Clip], gold: Sequence[Clip], duration_s: float) -> float:
    """IoU * (1 - |ds|/D) * (1 - |de|/D), in [0, 1]; see `TimestampIoU`."""
    iou = temporal_iou(predicted, gold)
    if iou == 0.0:
        return 0.0
    p, g = merge_clips(tuple(predicted)), merge_clips(tuple(gold))
    ds = abs(min(c.start_s for c in p) - min(c.start_s for c in g))
    de = abs(max(c.end_s for c in p) - max(c.end_s for c in g))
    return iou * max(0.0, 1.0 - ds / duration_s) * max(0.0, 1.0 - de / duration_s)


def giou(a: Clip, b: Clip) -> float:
    """IoU - (hull - union) / hull, in [-1, 1]: negative, and rising as the gap closes, where the two do not meet.

    Source: Rezatofighi et al. 2019 (GIoU), in one dimension. Clips of different videos are as far as can be: -1.
    """
    if a.video_id != b.video_id:
        return -1.0
    hull = max(a.end_s, b.end_s) - min(a.start_s, b.start_s)
    if hull <= 0:
        return 0.0
    union = a.duration_s + b.duration_s - a.overlap_s(b)
    return a.iou(b) - (hull - union) / hull


def near_miss(a: Clip, b: Clip) -> float:
    """max(0, (1 + IoU - dc^2/H^2 - dw^2/H^2) / 2), in [0, 1]: 1 for the same span, 0.375 for its neighbour.

    Near 0 for a span that covers the whole video.

    dc: distance of the centres, dw: difference of the lengths, H: length of the hull. Source: Zhang et al. 2022
    (EIoU) in one dimension, moved to [0, 1]. Not GIoU: a span inflated to the whole video has GIoU = IoU > 0 and
    would beat every near miss; here it loses the term of lengths. Two empty spans score 0.
    """
    if a.video_id != b.video_id:
        return 0.0
    hull = max(a.end_s, b.end_s) - min(a.start_s, b.start_s)
    if hull <= 0 or a.duration_s <= 0 or b.duration_s <= 0:
        return 0.0
    centre, width = (a.centre_s - b.centre_s) / hull, (a.duration_s - b.duration_s) / hull
    return min(1.0, max(0.0, (1.0 + a.iou(b) - centre**2 - width**2) / 2.0))


def matched(predicted: Sequence[Clip], gold: Sequence[Clip], score: Callable[[Clip, Clip], float]) -> float:
    """Best sum of `score` over one-to-one pairs in order of time, over the greater number of spans; 0 without any.

    With scores in [0, 1] the result is in [0, 1]; a span too many or too few scores 0. Overlapping predictions are
    merged before.
    """
    p, g = merge_clips(tuple(predicted)), merge_clips(tuple(gold))
    if not p or not g:
        return 0.0
    before = [0.0] * (len(g) + 1)
    for clip in p:
        row = [0.0]
        for j, other in enumerate(g):
            row.append(max(before[j] + score(clip, other), before[j + 1], row[j]))
        before = row
    return before[-1] / max(len(p), len(g))


def hausdorff_s(a: Clip, b: Clip) -> float:
    """Hausdorff distance of two intervals in seconds: max(|ds|, |de|); infinite across videos."""
    if a.video_id != b.video_id:
        return math.inf
    return max(abs(a.start_s - b.start_s), abs(a.end_s - b.end_s))


def proximity_sigma(progress: float) -> float:
    """4 (1 - progress) seconds until progress 3/4, then 1 (Open-o3-Video); never rising."""
    return 4.0 * (1.0 - progress) if progress < 0.75 else 1.0

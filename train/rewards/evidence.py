"""Did it look where the answer lies, and does it cite what proves it? Read from the environment's log.

What was looked at is `Trajectory.evidence_seen` (the clips of the observations that did not fail) and
`Trajectory.frames` (what the model was shown): nothing that the model writes can add to either.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...core.clip import merge_clips
from ...core.scoring import evidence_recall, temporal_iou
from ...core.trajectory import Trajectory
from .answer import AnswerReward
from .context import RewardContext, RewardError


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceRecall:
    """Share of the gold seconds that tools looked at, |seen and gold| / |gold|, in [0, 1].

    Source: LongVT `vl_agent.py` (`use_time_reward`), there of the model's last written call. Recall never falls by
    looking at more: pair it with a cost.
    """

    name: str = "evidence_recall"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        return evidence_recall(trajectory.evidence_seen, trajectory.task.evidence)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceEvents:
    """Share of the gold events of which the model was shown at least one frame, in [0, 1].

    Where one frame of an event answers the question (a colour, a count of events), recall in seconds would pay for
    frames that nobody needs. Ours.
    """

    name: str = "evidence_events"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        gold = trajectory.task.evidence
        shown = {(f.video_id, f.timestamp_s) for f in trajectory.frames}
        seen = [any(video == clip.video_id and clip.contains(t) for video, t in shown) for clip in gold]
        return sum(seen) / len(seen) if seen else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LastLook:
    """IoU of what the last call that worked looked at with the gold evidence, in [0, 1].

    Source: LongVT `vl_agent.py` (`use_iou_reward`): "IoU of the last parsable crop_video", there read from the text
    and paid whenever a `<tool_response>` stands in it, made up or not. Here only an observation counts.
    """

    name: str = "last_look"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        looks = [o.clips for o in trajectory.observations if o.error is None and o.clips]
        return temporal_iou(looks[-1], trajectory.task.evidence) if looks else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Grounded:
    """Share of the cited seconds that were looked at, |cited and seen| / |cited|, in [0, 1]; 0 where nothing is cited.

    A citation that no tool has looked at is a guess. Ours; the published systems do not check it.
    """

    name: str = "grounded"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        return grounded_share(trajectory)


@dataclass(frozen=True, kw_only=True, slots=True)
class Completeness:
    """1 where the answer is right, and right again when given from the looked-at clips alone, else 0.

    1[score > 0.5] * 1[verified > 0.5]. Source: TimeSearch-R, completeness self-verification (`reward/v7.py::
    compute_counterfactual_reasoning_score`). The verifier's score is in the context.
    """

    answer: AnswerReward = field(default_factory=AnswerReward)
    name: str = "completeness"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        if context.verified is None:
            raise RewardError("completeness needs a verifier's score in the context (`verify.with_verdicts`)")
        return float(self.answer(trajectory, context) > 0.5 and context.verified > 0.5)


def grounded_share(trajectory: Trajectory) -> float:
    """Share of the cited seconds that tools looked at, in [0, 1]; 0 where nothing is cited."""
    cited = trajectory.answer.evidence if trajectory.answer else ()
    return evidence_recall(trajectory.evidence_seen, merge_clips(cited))

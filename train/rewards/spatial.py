"""Where in the frame? Rewards for boxes.

The gold boxes come with the context; the predicted ones with the answer (`Answer.boxes`, from the tool that crops),
each with the time of its frame. The functions take boxes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...core.box import Box
from ...core.scoring import gold_boxes
from ...core.trajectory import Trajectory
from .context import RewardContext, RewardError

GATE_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SpatialIoU:
    """IoU of the answer's boxes with the gold ones, matched one to one and divided by the greater number, in [0, 1].

    A box counts only on a frame within `gate_s` seconds of the gold one, before or after. Source: Open-o3-Video
    (`reward_func.py::thk_spatial_reward`), which gates within a second too, but tests `gold - predicted < 1` without the
    absolute value, so that any later time passes; and takes the mean over the claims alone, so that one sure box is enough.
    """

    gate_s: float = GATE_S
    name: str = "spatial_iou"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        gold = context.gold_boxes or gold_boxes(trajectory.task)
        if not gold:
            raise RewardError("the spatial IoU needs gold boxes, in the context or in the task")
        return boxes_iou(trajectory.answer.boxes if trajectory.answer else (), gold, self.gate_s)


def boxes_iou(predicted: Sequence[Box], gold: Sequence[Box], gate_s: float = GATE_S) -> float:
    """Sum of IoUs of a greedy one-to-one match over the greater number of boxes, in [0, 1]; 0 without any."""
    if not predicted or not gold:
        return 0.0

    def score(a: Box, b: Box) -> float:
        return a.iou(b) if in_time(a, b, gate_s) else 0.0

    return sum(_greedy(predicted, gold, score)) / max(len(predicted), len(gold))


def in_time(a: Box, b: Box, gate_s: float) -> bool:
    """Are the frames of the two at most `gate_s` apart, in either direction?"""
    return abs(a.time_s - b.time_s) <= gate_s


def _greedy(predicted: Sequence[Box], gold: Sequence[Box], score: Callable[[Box, Box], float]) -> list[float]:
    pairs = sorted(
        ((score(a, b), i, j) for i, a in enumerate(predicted) for j, b in enumerate(gold)), key=lambda x: (-x[0], x[1:])
    )
    used_p: set[int] = set()
    used_g: set[int] = set()
    taken: list[float] = []
    for value, i, j in pairs:
        if value > 0 and i not in used_p and j not in used_g:
            used_p.add(i)
            used_g.add(j)
            taken.append(value)
    return taken

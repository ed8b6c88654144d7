"""Rubrics: ours for the world, and those of published systems in our parts.

    playhead rewards explain runs/x/trajectories.jsonl --rubric longvt

Where a published reward reads tags or text, ours reads the environment's log; what else differs is said in the docstring.
"""

from __future__ import annotations

from collections.abc import Callable

from .answer import AnswerReward, OpenText
from .as_written import SpansInText, TagsInText
from .contrast import PublishedTemporalContrast, TemporalContrast
from .cost import Cost, LengthWindow, Spent
from .evidence import Completeness, EvidenceEvents, EvidenceRecall, LastLook
from .format import FormatReward
from .rubric import Rubric
from .temporal import Spans, TemporalIoU, TemporalProximity, TimestampIoU


def world_rubric(
    *,
    evidence: float = 0.2,
    seconds: float = 0.0,
    format: float = 0.1,
    frames: float = 0.1,
    cited: float = 0.0,
    turns: float = 0.0,
) -> Rubric:
    """answer + 0.2 evidence shown + 0.1 format - 0.1 frames (+ gold seconds shown + IoU of what is cited - turns), for tasks
    with gold evidence.

    Where answers are right or wrong, a right one beats a wrong one by at least 0.6: wrong ones get at most 0.3, right
    ones lose at most 0.1. Frames are a share of 64. The evidence counts by events; by seconds, and by what is cited, only
    if asked for: either pays for frames that the answer does not need. `seconds` keeps the closer looks at what proves
    the answer, which a cost of frames alone takes away.
    """
    parts = [(AnswerReward(), 1.0), (EvidenceEvents(), evidence), (FormatReward(), format)]
    parts += [(EvidenceRecall(), seconds)] if seconds else []
    parts += [(TemporalIoU(), cited)] if cited else []
    parts += [(Cost(spent=Spent.FRAMES, limit=64), frames)]
    parts += [(Cost(spent=Spent.TURNS, limit=8), turns)] if turns else []
    return Rubric.of("world", parts)


def text_rubric(*, evidence: float = 0.2, seconds: float = 0.0, format: float = 0.1, frames: float = 0.1) -> Rubric:
    """answer + 0.2 spans in the text + 0.1 tags in the text - 0.1 frames: `world` as it would be if it believed the text.

    For an ablation; it pays for what was not looked at. A text has spans and no frames: `evidence` and `seconds` are of one
    part.
    """
    cost = Cost(spent=Spent.FRAMES, limit=64)
    parts = [(AnswerReward(), 1.0), (SpansInText(), evidence + seconds), (TagsInText(), format), (cost, frames)]
    return Rubric.of("text", parts)


def answer_rubric() -> Rubric:
    """answer + 0.1 format: for tasks without gold evidence."""
    return Rubric.of("answer", [(AnswerReward(open_text=OpenText.ROUGE), 1.0), (FormatReward(), 0.1)])


def longvt_rubric(*, judge: bool = False) -> Rubric:
    """answer + format + IoU of the last look (LongVT `vl_agent.py` with `use_iou_reward`).

    Its answers are judged by a 72B model; here exact or by ROUGE unless `judge`. Its IoU is of the last call in the text.
    """
    answer = AnswerReward(open_text=OpenText.JUDGE if judge else OpenText.ROUGE)
    return Rubric.of("longvt", [(answer, 1.0), (FormatReward(), 1.0), (LastLook(), 1.0)])


def time_r1_rubric() -> Rubric:
    """timestamp-aware IoU of the answered interval + format (Time-R1); for tasks of kind "when"."""
    return Rubric.of("time_r1", [(TimestampIoU(of=Spans.ANSWER), 1.0), (FormatReward(), 1.0)])


def video_r1_rubric(*, published: bool = False) -> Rubric:
    """answer + format + 0.3 temporal contrast + 0.2 length window (Video-R1); the contrast fixed, or as `published`."""
    contrast = PublishedTemporalContrast() if published else TemporalContrast()
    answer = AnswerReward(open_text=OpenText.ROUGE)
    return Rubric.of("video_r1", [(answer, 1.0), (FormatReward(), 1.0), (contrast, 0.3), (LengthWindow(), 0.2)])


def timesearch_rubric() -> Rubric:
    """format + 0.5 answer + 0.5 completeness (TimeSearch-R `reward/v7.py`)."""
    return Rubric.of("timesearch", [(FormatReward(), 1.0), (AnswerReward(), 0.5), (Completeness(), 0.5)])


def open_o3_rubric() -> Rubric:
    """answer + IoU of the cited spans + format + adaptive proximity of the cited spans (Open-o3-Video, without its boxes)."""
    answer = AnswerReward(open_text=OpenText.ROUGE)
    return Rubric.of(
        "open_o3", [(answer, 1.0), (TemporalIoU(), 1.0), (FormatReward(), 1.0), (TemporalProximity(), 1.0)]
    )


RUBRICS: dict[str, Callable[[], Rubric]] = {
    "world": world_rubric,
    "text": text_rubric,
    "answer": answer_rubric,
    "longvt": longvt_rubric,
    "time_r1": time_r1_rubric,
    "video_r1": video_r1_rubric,
    "timesearch": timesearch_rubric,
    "open_o3": open_o3_rubric,
}
"""By the name that the command line takes."""

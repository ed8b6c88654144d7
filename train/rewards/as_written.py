"""What the model wrote, taken at its word: the rewards that published systems read from text, to compare ours with.

Both can be had without looking at anything: a span may be as long as the video, a call may fail, a `<tool_response>`
may be made up (`tests/train/test_rewards_exploits.py` has an episode that does all three and is paid in full). They
are for ablations (`playhead train grpo --set reward=text`) and for seeing what such a reward would have paid
(`playhead rewards explain ... --rubric text`). Nothing else uses them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...core.clip import Clip
from ...core.scoring import evidence_recall, parse_spans
from ...core.trajectory import Trajectory
from .context import RewardContext

_STRETCH = re.compile(r'"start_s"\s*:\s*"?(\d[\d.:]*)"?\s*,\s*"end_s"\s*:\s*"?(\d[\d.:]*)')
_CITED = re.compile(r"<evidence>(.*?)</evidence>", re.S)
_TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<answer>", "</answer>")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpansInText:
    """Share of the gold seconds within stretches that the model's text names, in calls and as evidence, in [0, 1].

    Source: LongVT `vl_agent.py`, `use_time_reward`: recall of the last call that parses. Here of all calls that are
    written, whether or not they ran, since a question may need several looks.
    """

    name: str = "spans_in_text"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        gold = trajectory.task.evidence
        if not gold:
            return 0.0
        text = written(trajectory)
        named = "; ".join([*(f"{a}-{b}" for a, b in _STRETCH.findall(text)), *_CITED.findall(text)])
        spans: tuple[Clip, ...] = parse_spans(named, gold[0].video_id, context.duration_s)
        return evidence_recall(spans, gold)


@dataclass(frozen=True, kw_only=True, slots=True)
class TagsInText:
    """1 where all tags of the form occur somewhere in the text, however often and in whatever order, else 0.

    Source: Video-RTS and others (`re.match` of a pattern), ParaVT (a `<tool_response>` in the text pays).
    """

    name: str = "tags_in_text"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        # The template of many models opens the first thought.
        text = "<think>" + written(trajectory)
        return float(all(tag in text for tag in _TAGS))


def written(trajectory: Trajectory) -> str:
    """All that the model said, turn after turn."""
    return "\n".join(turn.completion.text for turn in trajectory.turns)

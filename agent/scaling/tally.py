"""Tally: which answers are the same, and how much stands behind each.

Answers to a question with choices are the same when they name the same choice. Intervals are the same when they overlap
by half (IoU 0.5 with the middle one); what is said for them is the median start and end. All else is compared as
normalised text. An answer that is none ("unknown", or no choice where there are choices) only counts when there is no
other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median_low

from ...core.clip import Clip
from ...core.nouns import Answer
from ...core.scoring import normalise, parse_spans, temporal_iou

SAME_IOU = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Answers that are the same. `members` are indices into the list that was tallied, `speaker` the surest of them."""

    answer: Answer
    members: tuple[int, ...]
    speaker: int
    weight: float
    valid: bool


def tally(answers: Sequence[Answer], weights: Sequence[float] | None, choices: Sequence[str]) -> list[Group]:
    """The groups, heaviest first; ties go to the surer, then to the earlier one.

    The answer of a group is its speaker's, with the group's share of all weight as its confidence. A single ballot agrees with
    nobody, and keeps its own; an answer that is none has 0.

    Args:
        weights: of each answer; None for one each.
    """
    weights = [1.0] * len(answers) if weights is None else list(weights)
    valid = [is_answer(a, choices) for a in answers]
    spans = [_spans(a) if not choices else () for a in answers]
    sets = _by_key(answers, choices, [i for i in range(len(answers)) if not spans[i]])
    sets += _by_overlap(spans, weights, [i for i in range(len(answers)) if spans[i]])
    total = sum(w for w, ok in zip(weights, valid, strict=True) if ok) or sum(weights) or 1.0
    groups = []
    for members in sets:
        speaker = max(members, key=lambda i: (answers[i].confidence or 0.0, -i))
        weight = sum(weights[i] for i in members)
        agreed = answers[speaker].confidence if sum(valid) == 1 else round(min(1.0, weight / total), 4)
        sure = agreed if valid[speaker] else 0.0
        said = replace(_between(answers, spans, members, speaker), confidence=sure)
        groups.append(Group(answer=said, members=members, speaker=speaker, weight=weight, valid=valid[members[0]]))
    surest = {g.members: max(answers[i].confidence or 0.0 for i in g.members) for g in groups}
    return sorted(groups, key=lambda g: (not g.valid, -g.weight, -surest[g.members], g.members[0]))


def same(one: Answer, other: Answer, choices: Sequence[str]) -> bool:
    """Whether two answers say the same."""
    return len(tally([one, other], None, choices)) == 1


def is_answer(answer: Answer, choices: Sequence[str]) -> bool:
    """Whether it is an answer at all: not "unknown", and one of the choices where there are some."""
    return answer.choice is not None if choices else normalise(answer.text) not in ("", "unknown")


def _by_key(answers: Sequence[Answer], choices: Sequence[str], which: Sequence[int]) -> list[tuple[int, ...]]:
    groups: dict[object, list[int]] = {}
    for i in which:
        choice = answers[i].choice if choices else None
        groups.setdefault(normalise(answers[i].text) if choice is None else choice, []).append(i)
    return [tuple(g) for g in groups.values()]


def _by_overlap(
    spans: Sequence[tuple[Clip, ...]], weights: Sequence[float], which: Sequence[int]
) -> list[tuple[int, ...]]:
    """The heaviest neighbourhood first, again and again."""
    groups, rest = [], list(which)
    while rest:
        near = {i: [j for j in rest if j == i or temporal_iou(spans[i], spans[j]) >= SAME_IOU] for i in rest}
        best = max(rest, key=lambda i: (sum(weights[j] for j in near[i]), _closeness(spans, i, near[i]), -i))
        groups.append(tuple(near[best]))
        rest = [i for i in rest if i not in near[best]]
    return groups


def _closeness(spans: Sequence[tuple[Clip, ...]], i: int, near: Sequence[int]) -> float:
    return sum(temporal_iou(spans[i], spans[j]) for j in near)


def _between(
    answers: Sequence[Answer], spans: Sequence[tuple[Clip, ...]], members: Sequence[int], speaker: int
) -> Answer:
    """What is said for a group: its speaker's answer, or the middle of its intervals where each names one."""
    if len(members) < 3 or any(len(spans[i]) != 1 for i in members):
        return answers[speaker]
    start_s = median_low(spans[i][0].start_s for i in members)
    end_s = median_low(spans[i][0].end_s for i in members)
    if end_s <= start_s:
        return answers[speaker]
    cited = tuple(Clip(video_id=c.video_id, start_s=start_s, end_s=end_s) for c in answers[speaker].evidence[:1])
    return Answer(text=f"{start_s:.1f}-{end_s:.1f}", evidence=cited, boxes=answers[speaker].boxes)


def _spans(answer: Answer) -> tuple[Clip, ...]:
    """The intervals of an answer that says nothing but intervals."""
    if re.search(r"[^\W\d_]{2,}", re.sub(r"\b(?:to|until|secs?|seconds?|from|and)\b", " ", answer.text.lower())):
        return ()
    return parse_spans(answer.text, "")

"""Scoring: is an answer right, and does its evidence hold? Pure functions of text and clips, shared by evals and rewards.

Choices match by content or by a letter that stands alone; the first letter of a word is never taken for a choice
("Because" is not B), the known fault of published scorers.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from .clip import Clip, merge_clips
from .nouns import Answer, Task

_LETTER = re.compile(r"^\s*(?:(?:the\s+)?(?:final\s+)?(?:answer|option|choice)\s*(?:is)?\s*:?\s*)?[\(\[]?([A-Z])[\)\]\.:,]?(?=\s|$)", re.I)
_INTERVAL = re.compile(r"(\d+(?:\.\d+)?)\s*(?:s|sec|seconds)?\s*(?:-|–|—|to|,)\s*(\d+(?:\.\d+)?)", re.I)
_NUMBER_WORDS = {w: str(i) for i, w in enumerate("zero one two three four five six seven eight nine ten".split())}


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces; number words as digits."""
    plain = text.lower().translate(str.maketrans({c: " " for c in string.punctuation}))
    words = (_NUMBER_WORDS.get(w, w) for w in plain.split() if w not in ("a", "an", "the"))
    return " ".join(words)


def match_choice(text: str, choices: Sequence[str]) -> int | None:
    """Index of the choice that `text` names, or None.

    In this order: the whole text equals a choice; it starts with a letter that stands alone ("B", "(B)", "B. red",
    "Answer: B"); exactly one choice occurs in it as whole words.
    """
    said = normalise(text)
    plain = [normalise(c) for c in choices]
    if said in plain:
        return plain.index(said)
    letter = _LETTER.match(text)
    # A lone "a" that opens a sentence is an article, unless nothing or a delimiter follows it.
    if letter and not (letter.group(1) == "a" and re.match(r"\s*a\s+\w", text)):
        index = ord(letter.group(1).upper()) - ord("A")
        if index < len(choices):
            return index
    found = [i for i, c in enumerate(plain) if c and re.search(rf"(?<!\w){re.escape(c)}(?!\w)", said)]
    return found[0] if len(found) == 1 else None


def parse_spans(text: str, video_id: str, duration_s: float | None = None) -> tuple[Clip, ...]:
    """The intervals written in `text` ("12.0-15.5; 30 to 32"), in seconds, clamped to the video, backwards ones dropped."""
    clips = []
    for a, b in _INTERVAL.findall(text):
        start_s, end_s = float(a), float(b)
        if duration_s is not None:
            start_s, end_s = min(start_s, duration_s), min(end_s, duration_s)
        if start_s < end_s:
            clips.append(Clip(video_id=video_id, start_s=start_s, end_s=end_s))
    return tuple(clips)


def temporal_iou(predicted: Sequence[Clip], gold: Sequence[Clip]) -> float:
    """IoU of two sets of intervals as sets of seconds, in [0, 1]; 0 when either is empty (never 1 for two empty sets)."""
    p, g = merge_clips(tuple(predicted)), merge_clips(tuple(gold))
    shared = sum(a.overlap_s(b) for a in p for b in g)
    union = sum(c.duration_s for c in (*p, *g)) - shared
    return shared / union if union > 0 else 0.0


def evidence_recall(seen: Sequence[Clip], gold: Sequence[Clip]) -> float:
    """Share of the gold seconds that were looked at, in [0, 1]; 0 without gold."""
    g = merge_clips(tuple(gold))
    total = sum(c.duration_s for c in g)
    return sum(a.overlap_s(b) for a in merge_clips(tuple(seen)) for b in g) / total if total > 0 else 0.0


def score_answer(task: Task, answer: Answer | None) -> float:
    """1 right, 0 wrong; the temporal IoU in [0, 1] for tasks of kind "when".

    Raises:
        ValueError: the task has no known answer.
    """
    if task.kind == "when":
        if not task.evidence:
            raise ValueError(f"task {task.id} asks when, but has no gold evidence to score against")
        return temporal_iou(parse_spans(answer.text, task.evidence[0].video_id), task.evidence) if answer else 0.0
    if task.answer is None:
        raise ValueError(f"task {task.id} has no known answer to score against")
    if answer is None:
        return 0.0
    if task.choices:
        gold = match_choice(task.answer, task.choices)
        said = answer.choice if answer.choice is not None else match_choice(answer.text, task.choices)
        return float(gold is not None and said == gold)
    return float(normalise(answer.text) == normalise(task.answer))


def is_right(task: Task, answer: Answer | None, iou_threshold: float = 0.5) -> bool:
    """Right or wrong: intervals count as right from `iou_threshold` on."""
    score = score_answer(task, answer)
    return score >= iou_threshold if task.kind == "when" else score == 1.0

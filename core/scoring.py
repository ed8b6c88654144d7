"""Scoring: is an answer right, and does its evidence hold? Pure functions of text and clips, shared by evals and rewards.

Choices match by content or by a letter that stands alone; the first letter of a word is never taken for a choice
("Because" is not B), the known fault of published scorers.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence

from .box import THOUSAND, Box
from .clip import Clip, merge_clips
from .nouns import Answer, Task

# "B", "(B).", "**B**", "The correct answer is: B"; a letter with a word character behind it is no choice.
_LETTER = re.compile(
    r"^[\s*_]*"
    r"(?:(?:(?:the|my)\s+)?(?:(?:final|correct|right|best)\s+)?(?:answer|option|choice)\s*(?:is)?\s*[:=-]?\s*(?:option\s+)?)?"
    r"[\s*_]*[(\[]?([A-Z])[)\].:,;*_]*(?=\s|$)",
    re.IGNORECASE,
)
# A or I before a word, with nothing between: "A red star", "I think".
_WORD_NOT_LETTER = re.compile(r"^\s*[AI]\s+\w", re.IGNORECASE)
_TIME = r"((?:\d+:){0,2}\d+(?:\.\d+)?)"
_INTERVAL = re.compile(
    rf"(?<![\d.:]){_TIME}\s*(?:s|secs?|seconds?)?\s*(?:-|\u2013|\u2014|to|until|,)\s*{_TIME}(?![\d:])", re.IGNORECASE
)
_NUMBER = r"(\d+(?:\.\d+)?)"
_BOX = re.compile(
    rf"(?<![\d.:,]){_TIME}(?:\s*(?:s|secs?|seconds?))?(?:\s*:\s*|\s+|(?=[\[(]))[\[(]?\s*"
    rf"{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}(?!\s*,\s*\d|[\d.]*\d)"
)
_NO_PUNCTUATION = str.maketrans({c: " " for c in string.punctuation + "\u2018\u2019\u201c\u201d\u2013\u2014\u2026"})
_NUMBER_WORDS = {
    w: str(i)
    for i, w in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
}


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces; number words as digits. An article alone stays."""
    plain = text.lower().translate(_NO_PUNCTUATION)
    words = [_NUMBER_WORDS.get(w, w) for w in plain.split()]
    return " ".join([w for w in words if w not in ("a", "an", "the")] or words)


def match_choice(text: str, choices: Sequence[str]) -> int | None:
    """Index of the choice that `text` names, or None.

    In this order: the whole text equals a choice; it starts with a letter that stands alone ("B", "(B)", "B. red",
    "Answer: B"); exactly one choice occurs in it as whole words. A text that opens with the word "A" or "I" is read for
    its words first.
    """
    if text.strip() in choices:
        return list(choices).index(text.strip())
    said, plain = normalise(text), [normalise(c) for c in choices]
    if said and said in plain:
        return plain.index(said)
    named, letter = _named(said, plain), _letter(text, len(choices))
    order = (named, letter) if _WORD_NOT_LETTER.match(text) else (letter, named)
    return next((i for i in order if i is not None), None)


def _letter(text: str, count: int) -> int | None:
    found = _LETTER.match(text)
    index = ord(found.group(1).upper()) - ord("A") if found else count
    return index if index < count else None


def _named(said: str, plain: Sequence[str]) -> int | None:
    """The one choice whose words occur in `said`; longer ones first, so that "dark red" is not also "red"."""
    found = []
    for i in sorted((i for i, c in enumerate(plain) if c), key=lambda i: -len(plain[i])):
        whole = re.compile(rf"(?<!\w){re.escape(plain[i])}(?!\w)")
        if whole.search(said):
            found.append(i)
            said = whole.sub("|", said)
    return found[0] if len(found) == 1 else None


def parse_spans(text: str, video_id: str, duration_s: float | None = None) -> tuple[Clip, ...]:
    """The intervals written in `text` ("12.0-15.5; 30 to 32; 1:05-1:10"), in seconds, clamped to the video; backwards,
    empty and infinite ones are dropped."""
    clips = []
    for first, second in _INTERVAL.findall(text):
        start_s, end_s = _seconds(first), _seconds(second)
        if duration_s is not None:
            start_s, end_s = min(start_s, duration_s), min(end_s, duration_s)
        if start_s < end_s < math.inf:
            clips.append(Clip(video_id=video_id, start_s=start_s, end_s=end_s))
    return tuple(clips)


def parse_boxes(text: str, video_id: str) -> tuple[Box, ...]:
    """The boxes written in `text` ("753.0: 170,370,630,830; 1:05: [100, 0, 400, 300]"): a time, then left, top, right, bottom
    in thousandths of the frame. Those that are empty or not inside the frame are dropped."""
    boxes = []
    for clock, *sides in _BOX.findall(text):
        x0, y0, x1, y1 = (float(side) / THOUSAND for side in sides)
        if x0 < x1 <= 1 and y0 < y1 <= 1 and _seconds(clock) < math.inf:
            boxes.append(Box(video_id=video_id, time_s=_seconds(clock), x0=x0, y0=y0, x1=x1, y1=y1))
    return tuple(boxes)


def _seconds(clock: str) -> float:
    """ "75.5" and "1:15.5" to seconds."""
    total = 0.0
    for part in clock.split(":"):
        total = total * 60 + float(part)
    return total


def temporal_iou(predicted: Sequence[Clip], gold: Sequence[Clip]) -> float:
    """IoU of two sets of intervals as sets of seconds, in [0, 1]; 0 when either is empty (never 1 for two empty sets)."""
    p, g = merge_clips(tuple(predicted)), merge_clips(tuple(gold))
    shared = sum(a.overlap_s(b) for a in p for b in g)
    union = sum(c.duration_s for c in (*p, *g)) - shared
    return min(1.0, shared / union) if union > 0 else 0.0


def spatial_iou(predicted: Sequence[Box], gold: Sequence[Box], tolerance_s: float = 0.5) -> float:
    """How well cited boxes fit, in [0, 1]: the mean over `predicted` of the best IoU with a gold box at most `tolerance_s`
    away in time; 0 when either is empty. A box more that hits nothing costs: naming many places does not pay."""
    if not predicted or not gold:
        return 0.0
    best = [max((p.iou(g) for g in gold if abs(p.time_s - g.time_s) <= tolerance_s), default=0.0) for p in predicted]
    return sum(best) / len(best)


def gold_boxes(task: Task) -> tuple[Box, ...]:
    """Where a task's answer is seen, as told by its `meta["boxes"]` in the form that models write; () where it does not say."""
    return parse_boxes(task.meta.get("boxes", ""), task.evidence[0].video_id) if task.evidence else ()


def evidence_recall(seen: Sequence[Clip], gold: Sequence[Clip]) -> float:
    """Share of the gold seconds that were looked at, in [0, 1]; 0 without gold."""
    g = merge_clips(tuple(gold))
    total = sum(c.duration_s for c in g)
    shared = sum(a.overlap_s(b) for a in merge_clips(tuple(seen)) for b in g)
    return min(1.0, shared / total) if total > 0 else 0.0


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

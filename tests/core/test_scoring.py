"""Scoring: the traps that published scorers fell into, and the arithmetic of intervals."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playhead.core.clip import Clip, merge_clips
from playhead.core.nouns import Answer, Task
from playhead.core.scoring import (
    evidence_recall,
    is_right,
    match_choice,
    normalise,
    parse_spans,
    score_answer,
    temporal_iou,
)

COLOURS = ("red", "blue", "green", "dark red")


def clip(start_s: float, end_s: float, video: str = "v") -> Clip:
    return Clip(video_id=video, start_s=start_s, end_s=end_s)


def spans(text: str, duration_s: float | None = None) -> list[tuple[float, float]]:
    return [(c.start_s, c.end_s) for c in parse_spans(text, "v", duration_s)]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("B", 1),
        ("b", 1),
        ("(C)", 2),
        ("[C]", 2),
        ("(C).", 2),
        ("C.", 2),
        ("c) green", 2),
        ("**B**", 1),
        ("Answer: C", 2),
        ("Answer: (C).", 2),
        ("answer is b", 1),
        ("The correct answer is: D.", 3),
        ("Final answer: option B", 1),
        ("B because it is red", 1),
        ("D\nBecause the star was first", 3),
        ("Red", 0),
        ("a red", 0),
        ("It is dark red.", 3),
        ("The star is blue", 1),
        ("A blue star", 1),
        ("A because nothing else fits", 0),
        ("I think it is green", 2),
    ],
)
def test_a_choice_is_found(text: str, index: int) -> None:
    assert match_choice(text, COLOURS) == index


@pytest.mark.parametrize(
    "text",
    [
        "Because it moves",
        "Definitely not",
        "Can't tell",
        "",
        "   ",
        "E",
        "red or blue",
        "?",
        "the",
        "Bluebell",
        "Answered",
    ],
)
def test_no_choice_is_not_guessed(text: str) -> None:
    assert match_choice(text, COLOURS) is None


def test_choices_that_are_articles_or_signs() -> None:
    assert match_choice("A", ("B", "A")) == 1, "content goes before the letter"
    assert match_choice("", ("a", "the")) is None
    assert match_choice("-", ("+", "-")) == 1
    assert match_choice("two", ("1", "2", "3")) == 1
    assert match_choice("12", ("1", "2")) is None
    assert match_choice("anything", ()) is None


@given(st.text(max_size=40), st.lists(st.text(max_size=12), max_size=6))
def test_any_text_gives_a_choice_or_none(text: str, choices: list[str]) -> None:
    found = match_choice(text, choices)
    assert found is None or 0 <= found < len(choices)


@given(st.integers(0, 25), st.sampled_from(["{}", "({})", "{}.", "Answer: {}", "the answer is {}.", "**{}**"]))
def test_every_letter_in_every_dress(index: int, dress: str) -> None:
    choices = [f"choice number {i} of many" for i in range(26)]
    assert match_choice(dress.format(chr(ord("A") + index)), choices) == index


def test_normalise() -> None:
    assert normalise("  The  \u201cRed\u201d Star! ") == "red star"
    assert normalise("three") == "3" and normalise("a") == "a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12.0-15.5; 30 to 32", [(12.0, 15.5), (30.0, 32.0)]),
        ("[12, 15.5]", [(12.0, 15.5)]),
        ("from 3s until 5 s", [(3.0, 5.0)]),
        ("3 seconds \u2013 5 seconds", [(3.0, 5.0)]),
        ("1:05-1:10", [(65.0, 70.0)]),
        ("1:00:00 - 1:00:02.5", [(3600.0, 3602.5)]),
        ("15-12", []),
        ("7-7", []),
        ("nothing", []),
        ("", []),
        ("1-2, 5-7", [(1.0, 2.0), (5.0, 7.0)]),
        ("9" * 400 + "-" + "9" * 401, []),
        ("5-" + "9" * 400, []),
    ],
)
def test_spans(text: str, expected: list[tuple[float, float]]) -> None:
    assert spans(text) == expected


def test_spans_are_cut_to_the_video() -> None:
    assert spans("5-99; 20-30", 10.0) == [(5.0, 10.0)]


def test_a_long_reply_is_parsed_in_no_time() -> None:
    assert spans("1" * 50_000) == [] and spans("1:" * 20_000) == []


@given(st.text(alphabet="0123456789.:-, to;s", max_size=60))
def test_any_span_text_gives_sound_clips(text: str) -> None:
    for a, b in spans(text):
        assert 0 <= a < b < math.inf


def test_empty_sets_of_intervals_score_nothing() -> None:
    assert temporal_iou([], []) == temporal_iou([clip(0, 1)], []) == temporal_iou([], [clip(0, 1)]) == 0.0
    assert temporal_iou([clip(3, 3)], [clip(3, 3)]) == 0.0
    assert evidence_recall([clip(0, 9)], []) == 0.0


def test_iou_of_sets() -> None:
    assert temporal_iou([clip(0, 10)], [clip(5, 15)]) == pytest.approx(1 / 3)
    assert temporal_iou([clip(0, 1), clip(0.5, 1)], [clip(0, 1)]) == 1.0, "the same second twice counts once"
    assert temporal_iou([clip(0, 1)], [clip(0, 1, "other")]) == 0.0


whole = st.integers(0, 40)
sets = st.lists(st.tuples(whole, whole).map(lambda p: clip(min(p), max(p))), max_size=6)


def seconds(clips: list[Clip] | tuple[Clip, ...]) -> set[int]:
    return {s for c in clips for s in range(int(c.start_s), int(c.end_s))}


@given(sets, sets)
def test_iou_counts_seconds(p: list[Clip], g: list[Clip]) -> None:
    either, both = seconds(p) | seconds(g), seconds(p) & seconds(g)
    assert temporal_iou(p, g) == pytest.approx(len(both) / len(either) if either else 0.0)
    assert evidence_recall(p, g) == pytest.approx(len(both) / len(seconds(g)) if seconds(g) else 0.0)


floats = st.floats(0, 1e6, allow_nan=False)


@given(st.lists(st.tuples(floats, floats).map(lambda p: clip(min(p), max(p))), max_size=5))
def test_scores_stay_in_range(p: list[Clip]) -> None:
    assert 0.0 <= temporal_iou(p, p) <= 1.0 and 0.0 <= evidence_recall(p, p) <= 1.0


def test_answers() -> None:
    task = Task(id="t", question="?", video="v", choices=COLOURS, answer="blue")
    assert score_answer(task, Answer(text="Because", choice=None)) == 0.0
    assert score_answer(task, Answer(text="Answer: B")) == 1.0
    assert score_answer(task, Answer(text="red", choice=1)) == 1.0
    assert score_answer(task, None) == 0.0
    with pytest.raises(ValueError, match="no known answer"):
        score_answer(Task(id="t", question="?", video="v"), Answer(text="x"))
    free = Task(id="t", question="?", video="v", answer="7")
    assert score_answer(free, Answer(text="Seven.")) == 1.0 and score_answer(free, Answer(text="17")) == 0.0


def test_when() -> None:
    task = Task(id="t", question="?", video="v", kind="when", evidence=(clip(10, 20),))
    assert score_answer(task, Answer(text="10-20")) == 1.0
    assert score_answer(task, Answer(text="20-10")) == 0.0, "backwards"
    assert is_right(task, Answer(text="12-20")) and not is_right(task, Answer(text="0-100"))
    assert not is_right(task, None)
    with pytest.raises(ValueError, match="no gold evidence"):
        score_answer(Task(id="t", question="?", video="v", kind="when"), None)


@pytest.mark.parametrize("bounds", [(2.0, 1.0), (math.nan, 1.0), (0.0, math.nan), (-math.inf, 1.0), (0.0, math.inf)])
def test_clips_refuse_nonsense(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="a clip needs"):
        clip(*bounds)


@given(sets)
def test_merged_clips_are_disjoint_and_the_same_seconds(clips: list[Clip]) -> None:
    merged = merge_clips(tuple(clips))
    assert seconds(merged) == seconds(clips)
    assert all(a.end_s < b.start_s for a, b in pairwise(merged))


@given(st.tuples(whole, whole), st.tuples(whole, whole))
def test_clip_arithmetic(a: tuple[int, int], b: tuple[int, int]) -> None:
    first, second = clip(min(a), max(a)), clip(min(b), max(b))
    assert first.iou(second) == second.iou(first) == pytest.approx(temporal_iou([first], [second]))
    inside = first.clamp(second.start_s, second.end_s)
    assert seconds([inside]) == seconds([first]) & seconds([second])
    assert second.start_s <= inside.start_s <= inside.end_s <= second.end_s
    assert not first.contains(first.end_s)

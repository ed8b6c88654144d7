"""Filters: what each one keeps, that they compose, and that they count."""

from dataclasses import replace

import pytest
from playhead.core.budget import Budget, Usage
from playhead.core.clip import Clip
from playhead.core.errors import DataError
from playhead.core.nouns import Answer, StopReason
from playhead.train.data.filters import (
    Agreement,
    Correct,
    Difficulty,
    Grounded,
    Sieve,
    Verified,
    WellFormed,
    WithinBudget,
    parse_filters,
    same_answer,
)


def keeps(which, trajectory, group=None):
    return which(trajectory, group or [trajectory])


def test_correct_asks_for_a_known_answer(make_task, make_trajectory):
    task = make_task()
    assert keeps(Correct(), make_trajectory(task, "left"))
    assert not keeps(Correct(), make_trajectory(task, "right"))
    assert not keeps(Correct(), make_trajectory(task, None))
    unknown = make_trajectory(replace(task, answer=None), "left")
    with pytest.raises(DataError, match="motion-0 has no known answer"):
        keeps(Correct(), unknown)


def test_grounded_reads_the_log_and_what_is_cited(make_task, make_trajectory):
    found = make_trajectory(make_task())  # looked at 96-112; gold is 100-106
    assert keeps(Grounded(), found)
    elsewhere = Clip(video_id="v", start_s=700.0, end_s=710.0)
    missed = replace(found, task=replace(found.task, evidence=(*found.task.evidence, elsewhere)))
    assert not keeps(Grounded(), missed)
    assert keeps(Grounded(share=0.5), missed)
    # Right by luck: it cites what it never looked at.
    lucky = replace(found, answer=Answer(text="left", evidence=(elsewhere,)))
    assert not keeps(Grounded(), lucky)
    blind = replace(found, turns=tuple(replace(t, observations=()) for t in found.turns))
    assert not keeps(Grounded(), blind)


def test_format_and_budget(make_task, make_trajectory):
    good = make_trajectory(make_task())
    assert keeps(WellFormed(), good)
    assert not keeps(WellFormed(), make_trajectory(make_task(), refused=1))
    assert not keeps(WellFormed(), replace(good, stop_reason=StopReason.MAX_TURNS))
    free = WithinBudget(budget=Budget(**dict.fromkeys(Budget.__dataclass_fields__)))
    assert keeps(free, good)
    assert not keeps(free, replace(good, stop_reason=StopReason.MAX_FRAMES))
    (tight,) = parse_filters("budget=frames:4")
    assert not keeps(tight, good)
    assert keeps(tight, replace(good, usage=Usage(frames=4)))


def test_agreement_and_difficulty_look_at_the_group(make_task, make_trajectory):
    task = make_task()
    left, right, none = (make_trajectory(task, said) for said in ("left", "right", None))
    group = [left, left, left, right]
    assert keeps(Agreement(), left, group) and not keeps(Agreement(), right, group)
    assert not keeps(Agreement(), left, [left, right])
    assert not keeps(Agreement(), none, [none, none])
    assert keeps(Difficulty(), right, group)
    assert not keeps(Difficulty(), left, [left, left]) and not keeps(Difficulty(), right, [right, right])
    (middling,) = parse_filters("difficulty=0.2-0.5")
    assert not keeps(middling, left, group) and keeps(middling, left, [left, right])


def test_intervals_are_the_same_when_they_overlap(make_task):
    when = make_task("when", "100.0-106.0")
    assert same_answer(when, Answer(text="100-106"), Answer(text="100.5-106.0"))
    assert not same_answer(when, Answer(text="100-106"), Answer(text="200-206"))
    assert not same_answer(when, None, None)
    choice = make_task()
    assert same_answer(choice, Answer(text="(A) left", choice=0), Answer(text="left", choice=0))


def test_a_sieve_counts_what_each_filter_dropped(make_task, make_trajectory):
    task = make_task()
    group = [make_trajectory(task, said) for said in ("left", "left", "right")]
    group = [replace(t, id=f"t{i}") for i, t in enumerate(group)]
    sieve = Sieve((Correct(), Verified(verdicts={"t0": True, "t2": True})))
    assert [t.id for t in sieve.sift(group)] == ["t0"]
    assert [(d.name, d.seen, d.dropped) for d in sieve.drops] == [("correct", 3, 1), ("verified", 2, 1)]
    # What was left out before still counts in the group.
    hard = Sieve((Difficulty(),))
    assert [t.id for t in hard.sift(group[:1], group)] == ["t0"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hope", "no filter is called 'hope'"),
        ("correct,correct", "each filter once"),
        ("correct=2", "0 to 1"),
        ("grounded=all", "grounded=all"),
        ("format=1", "takes no value"),
        ("difficulty=0.5", "LOW-HIGH"),
        ("budget=films:3", "no limit is called 'films'"),
    ],
)
def test_bad_filters_are_refused(text, says):
    with pytest.raises(DataError, match=says):
        parse_filters(text)


def test_no_filters():
    assert parse_filters(None) == parse_filters("") == ()

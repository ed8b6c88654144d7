"""Scenes and questions: true by construction, and with no shortcut in them."""

import itertools
import random
from collections import Counter, defaultdict

import pytest
from playhead.world.questions import KINDS, make_tasks
from playhead.world.scene import MOTIONS
from playhead.world.script import make_cast, make_scene

CASTS = [make_cast(seed, 10 + seed % 20) for seed in range(900)]
TASKS = [(cast, task) for cast in CASTS for task in make_tasks(cast, "film.mp4", "id")]


def test_a_scene_follows_from_its_seed():
    assert make_scene(5, 12) == make_scene(5, 12)
    assert make_scene(5, 12) != make_scene(6, 12)


def test_events_never_overlap_and_fit_the_film():
    for cast in CASTS:
        events = cast.scene.events
        assert all(b.start_s - a.end_s >= 7.5 for a, b in itertools.pairwise(events))
        assert events[0].start_s >= 0 and events[-1].end_s <= cast.scene.duration_s


def test_every_name_asked_for_is_as_unique_as_the_question_needs():
    for cast in CASTS:
        names = Counter(e.name for e in cast.scene.events)
        odd = cast.scene.events[cast.odd]
        same = [e for e in cast.scene.events if getattr(e, cast.odd_by) == getattr(odd, cast.odd_by)]
        assert same == [odd]
        assert all(names[cast.scene.events[i].name] == 1 for i in cast.lone)
        assert names[cast.scene.events[cast.leader].name] == names[cast.scene.events[cast.leader + 1].name] == 1


def test_answers_are_among_the_choices_and_evidence_is_in_the_film():
    for cast, task in TASKS:
        assert task.evidence
        assert all(0 <= c.start_s < c.end_s <= cast.scene.duration_s for c in task.evidence)
        assert not task.choices or task.choices.count(task.answer or "") == 1


def test_scenes_too_short_for_rare_events_are_refused():
    with pytest.raises(ValueError, match="at least 4 minutes"):
        make_scene(1, 2)


def _chance(kind: str) -> float:
    return {"first": 1 / 2, "motion": 1 / len(MOTIONS)}.get(kind, 1 / 4)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "when"])
def test_a_guesser_that_only_reads_is_at_chance(kind: str):
    """Naive Bayes over words of the question and what each choice says and where it stands, trained on two thirds."""
    tasks = [t for _, t in TASKS if t.kind == kind]
    seen, unseen = tasks[:600], tasks[600:]
    right: dict[tuple[str, str], float] = defaultdict(lambda: 1.0)
    offered: dict[tuple[str, str], float] = defaultdict(lambda: 4.0)
    for task in seen:
        for place, choice in enumerate(task.choices):
            for word in (*task.question.lower().split(), f"place{place}"):
                offered[word, choice] += 1
                right[word, choice] += choice == task.answer

    def score(question: str, choice: str, place: int) -> float:
        product = 1.0
        for word in (*question.lower().split(), f"place{place}"):
            product *= right[word, choice] / offered[word, choice]
        return product

    hits = sum(
        max(enumerate(t.choices), key=lambda c: score(t.question, c[1], c[0]))[1] == t.answer for t in unseen
    )
    assert hits / len(unseen) < _chance(kind) + 0.1


def test_one_middle_frame_is_at_chance():
    """A guesser that sees the middle frame perfectly, and names what it shows where it can."""
    rng = random.Random(0)
    hits, chance, n = 0.0, 0.0, 0
    for cast, task in TASKS:
        if not task.choices:
            continue
        event = cast.scene.event_at(cast.scene.duration_s / 2)
        shown = {event.name, event.colour, event.shape, event.motion, str(event.digit)} if event else set()
        likely = [c for c in task.choices if c in shown]
        hits += (likely[0] if len(likely) == 1 else rng.choice(task.choices)) == task.answer
        chance += 1 / len(task.choices)
        n += 1
    assert hits / n < chance / n + 0.04

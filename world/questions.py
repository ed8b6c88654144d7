"""Questions about a scene, with choices, answer and evidence: seven kinds, several wordings each.

Choices are drawn so that none is more likely by its words; for "first" and "after" all of them appear in the video.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ..core.clip import Clip
from ..core.nouns import Task
from .scene import COLOURS, MOTIONS, SHAPES, Event
from .script import Cast

KINDS = ("attribute", "motion", "first", "count", "when", "after", "digit")

_WORDS: dict[str, tuple[str, ...]] = {
    "colour": ("What colour is the {s}?", "Which colour does the {s} have?", "The {s} that appears: what colour is it?"),
    "shape": ("What shape is the {c} object?", "Which shape does the {c} thing have?", "The {c} object: what shape is it?"),
    "motion": ("Which way does the {n} move?", "In what direction does the {n} travel?", "Where does the {n} go?"),
    "first": ("Which appears first, the {n} or the {m}?", "What is seen earlier, the {n} or the {m}?",
              "Does the {n} or the {m} come first?"),
    "count": ("How many times does the {n} appear?", "How often is the {n} seen?", "Count the appearances of the {n}."),
    "when": ("When does the {n} appear?", "At what time is the {n} on screen?", "From when to when is the {n} seen?"),
    "after": ("What appears right after the {n}?", "What comes next after the {n}?",
              "Which object follows the {n}?"),
    "digit": ("Which digit is on the {n}?", "What number does the {n} carry?", "Read the digit on the {n}."),
}  # fmt: skip


def make_tasks(cast: Cast, video: str, video_id: str, draw: int = 0) -> list[Task]:
    """One task of every kind. Another `draw` asks about other objects in other words, where the scene has others."""
    rng = random.Random(f"playhead-questions-{cast.scene.seed}" + (f"-{draw}" if draw else ""))
    makers: dict[str, Callable[[Cast, random.Random], _Draft]] = {
        "attribute": _attribute, "motion": _motion, "first": _first, "count": _count,
        "when": _when, "after": _after, "digit": _digit,
    }  # fmt: skip
    tasks = []
    for kind in KINDS:
        question, choices, answer, events = makers[kind](cast, rng)
        clips = tuple(Clip(video_id=video_id, start_s=e.start_s, end_s=e.end_s) for e in events)
        tasks.append(
            Task(
                id=f"world-{cast.scene.seed}-{kind}" + (f"-{draw}" if draw else ""),
                question=question,
                video=video,
                choices=choices,
                answer=answer,
                evidence=clips,
                kind=kind,
                source="world",
                meta={"seed": str(cast.scene.seed), "minutes": repr(cast.scene.duration_s / 60)},
            )
        )
    return tasks


_Draft = tuple[str, tuple[str, ...], str, tuple[Event, ...]]


def _say(rng: random.Random, kind: str, **names: str) -> str:
    return rng.choice(_WORDS[kind]).format(**names)


def _options(rng: random.Random, answer: str, others: list[str], n: int) -> tuple[str, ...]:
    """`answer` among `n - 1` of the others, in random order."""
    chosen = [answer, *rng.sample([o for o in others if o != answer], n - 1)]
    rng.shuffle(chosen)
    return tuple(chosen)


def _attribute(cast: Cast, rng: random.Random) -> _Draft:
    event = cast.scene.events[cast.odd]
    if cast.odd_by == "shape":
        question = _say(rng, "colour", s=event.shape)
        return question, _options(rng, event.colour, list(COLOURS), 4), event.colour, (event,)
    question = _say(rng, "shape", c=event.colour)
    return question, _options(rng, event.shape, list(SHAPES), 4), event.shape, (event,)


def _motion(cast: Cast, rng: random.Random) -> _Draft:
    event = cast.scene.events[rng.choice(cast.lone)]
    return _say(rng, "motion", n=event.name), MOTIONS, event.motion, (event,)


def _first(cast: Cast, rng: random.Random) -> _Draft:
    a, b = rng.sample(cast.lone, 2)
    one, two = cast.scene.events[a], cast.scene.events[b]
    answer = one.name if one.start_s < two.start_s else two.name
    return _say(rng, "first", n=one.name, m=two.name), (one.name, two.name), answer, (one, two)


def _count(cast: Cast, rng: random.Random) -> _Draft:
    events = tuple(cast.scene.events[i] for i in cast.counted)
    return _say(rng, "count", n=events[0].name), ("1", "2", "3", "4"), str(len(events)), events


def _when(cast: Cast, rng: random.Random) -> _Draft:
    event = cast.scene.events[rng.choice(cast.lone)]
    return _say(rng, "when", n=event.name), (), f"{event.start_s:.1f}-{event.end_s:.1f}", (event,)


def _after(cast: Cast, rng: random.Random) -> _Draft:
    events = cast.scene.events
    event, following = events[cast.leader], events[cast.leader + 1]
    others = sorted({e.name for e in events} - {event.name, following.name})
    return _say(rng, "after", n=event.name), _options(rng, following.name, others, 4), following.name, (event, following)


def _digit(cast: Cast, rng: random.Random) -> _Draft:
    carrying = [i for i in cast.lone if cast.scene.events[i].digit is not None]
    event = cast.scene.events[rng.choice(carrying)]
    options = _options(rng, str(event.digit), [str(d) for d in range(10)], 4)
    return _say(rng, "digit", n=event.name), options, str(event.digit), (event,)

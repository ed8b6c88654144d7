"""Questions about a scene, with choices, answer and evidence: ten kinds, several wordings each.

Choices are drawn so that none is more likely by its words; for "first" and "after" all of them appear in the video, and so do
the objects and the words of "subtitle". `KINDS` are asked of any scene; `RICH_KINDS` need one with talk and small digits. The
first seven draw from one row of random numbers, which the later kinds leave alone: they read the same with or without them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ..core.box import Box
from ..core.clip import Clip
from ..core.nouns import Task
from .scene import BINS, COLOURS, MOTIONS, PLACES, SHAPES, Event, Line, position_bin
from .script import RICH, Cast

KINDS = ("attribute", "motion", "first", "count", "when", "after", "digit")
MORE_KINDS = ("where", "subtitle", "small")
RICH_KINDS = ("subtitle", "small")
"""These are asked of a rich scene only."""
ALL_KINDS = KINDS + MORE_KINDS
SEEN_WITHIN_S = 1.0
"""A look at one frame a second finds an object at most so late: "where" asks only where that makes no difference."""
BOX_STEP_S = 0.5

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
    "where": ("In which corner of the screen does the {n} appear?", "Where on the screen does the {n} first appear?",
              "Which corner of the screen does the {n} start in?"),
    "said": ('What object is on screen when the subtitle says "{w}"?', 'Which object is seen while the subtitles say "{w}"?',
             'The subtitles say "{w}": what is on screen then?'),
    "saying": ("What do the subtitles talk about while the {n} is on screen?",
               "What thing do the subtitles name while the {n} is seen?",
               "While the {n} is on screen, what do the subtitles speak of?"),
    "small": ("Which small digit is on the {n}?", "What tiny number does the {n} carry?", "Read the small digit on the {n}."),
}  # fmt: skip


def make_tasks(
    cast: Cast, video: str, video_id: str, draw: int = 0, kinds: Sequence[str] = KINDS
) -> list[Task]:
    """One task of every kind, where the scene has what it asks about. Another `draw` asks about other objects in other words,
    where the scene has others.

    Raises:
        ValueError: a kind of an unknown name, or one that needs a rich scene, asked of a plain one.
    """
    check_kinds(kinds)
    rich = bool(cast.scene.lines)
    if not rich and any(kind in RICH_KINDS for kind in kinds):
        raise ValueError(f"questions about subtitles and small digits need a rich scene; {cast.scene.seed} is a plain one")
    rng = _random("questions", cast, draw)
    drafts = {kind: maker(cast, rng) for kind, maker in _MAKERS.items()}  # all of them: they share their random numbers
    for kind, maker in _MORE_MAKERS.items():
        draft = maker(cast, _random(kind, cast, draw)) if kind in kinds else None
        if draft is not None:
            drafts[kind] = draft
    return [_task(cast, kind, drafts[kind], video, video_id, draw) for kind in ALL_KINDS if kind in kinds and kind in drafts]


def parse_kinds(text: str) -> tuple[str, ...]:
    """Kinds as they are written on a command line: "seven", "all" (ten), or names separated by commas.

    Raises:
        ValueError: an unknown name, or none at all.
    """
    named = tuple(kind.strip() for kind in text.split(",") if kind.strip())
    kinds = {"seven": KINDS, "all": ALL_KINDS}.get(text.strip(), named)
    if not kinds:
        raise ValueError(f"no kinds of questions in {text!r}; write seven, all, or some of {', '.join(ALL_KINDS)}")
    check_kinds(kinds)
    return kinds


def check_kinds(kinds: Sequence[str]) -> None:
    """Raises ValueError for a kind that is not of this world."""
    for kind in kinds:
        if kind not in ALL_KINDS:
            raise ValueError(f"no kind of question is called {kind!r}; there are {', '.join(ALL_KINDS)}")


def _random(what: str, cast: Cast, draw: int) -> random.Random:
    return random.Random(f"playhead-{what}-{cast.scene.seed}" + (f"-{draw}" if draw else ""))


def _task(cast: Cast, kind: str, draft: _Draft, video: str, video_id: str, draw: int) -> Task:
    question, choices, answer, events = draft
    meta = {"seed": str(cast.scene.seed), "minutes": repr(cast.scene.duration_s / 60)}
    if cast.scene.lines:
        meta["edition"] = RICH
    if cast.scene.haze:
        meta["haze"] = repr(cast.scene.haze)
    if kind == "where":
        meta["boxes"] = "; ".join(box.text for box in event_boxes(events[0], video_id))
    return Task(
        id=f"world-{cast.scene.seed}-{kind}" + (f"-{draw}" if draw else ""),
        question=question,
        video=video,
        choices=choices,
        answer=answer,
        evidence=tuple(Clip(video_id=video_id, start_s=e.start_s, end_s=e.end_s) for e in events),
        kind=kind,
        source="world",
        meta=meta,
    )


def event_boxes(event: Event, video_id: str) -> list[Box]:
    """Where an object is, every half second."""
    boxes = []
    for i in range(round((event.end_s - event.start_s) / BOX_STEP_S)):
        time_s, half = event.start_s + i * BOX_STEP_S, event.size / 2
        x, y = event.position(time_s)
        sides = {"x0": x - half, "y0": y - half, "x1": x + half, "y1": y + half}
        boxes.append(Box(video_id=video_id, time_s=time_s, **{k: min(1.0, max(0.0, v)) for k, v in sides.items()}))
    return boxes


def corner(x: float, y: float) -> str | None:
    """The corner of the screen that a centre lies in; None in the middle column or row."""
    across, down = position_bin(x), position_bin(y)
    if BINS // 2 in (across, down):
        return None
    return f"{'top' if down < BINS // 2 else 'bottom'} {'left' if across < BINS // 2 else 'right'}"


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


def _where(cast: Cast, rng: random.Random) -> _Draft | None:
    starts = {}
    for i in cast.lone:
        event = cast.scene.events[i]
        first, last = corner(event.x0, event.y0), corner(*event.position(event.start_s + SEEN_WITHIN_S))
        if first is not None and first == last:
            starts[i] = first
    if not starts:
        return None
    chosen = rng.choice(list(starts))
    event = cast.scene.events[chosen]
    return _say(rng, "where", n=event.name), PLACES, starts[chosen], (event,)


def _subtitle(cast: Cast, rng: random.Random) -> _Draft:
    """What is on screen when a word is said, or what is said while something is on screen."""
    spoken = [(cast.scene.events[i], line) for i in cast.lone if (line := _spoken(cast, i)) is not None]
    event, line = rng.choice(spoken)
    if rng.random() < 0.5:
        others = sorted({e.name for e in cast.scene.events} - {event.name})
        return _say(rng, "said", w=line.word), _options(rng, event.name, others, 4), event.name, (event,)
    words = sorted({other.word for other in cast.scene.lines} - {line.word})
    return _say(rng, "saying", n=event.name), _options(rng, line.word, words, 4), line.word, (event,)


def _spoken(cast: Cast, i: int) -> Line | None:
    event = cast.scene.events[i]
    return next((line for line in cast.scene.lines if event.start_s <= line.start_s < event.end_s), None)


def _small(cast: Cast, rng: random.Random) -> _Draft | None:
    carrying = [i for i in cast.lone if cast.scene.events[i].small_digit is not None]
    if not carrying:
        return None
    event = cast.scene.events[rng.choice(carrying)]
    options = _options(rng, str(event.small_digit), [str(d) for d in range(10)], 4)
    return _say(rng, "small", n=event.name), options, str(event.small_digit), (event,)


_MAKERS: dict[str, Callable[[Cast, random.Random], _Draft]] = {
    "attribute": _attribute, "motion": _motion, "first": _first, "count": _count,
    "when": _when, "after": _after, "digit": _digit,
}  # fmt: skip
_MORE_MAKERS: dict[str, Callable[[Cast, random.Random], _Draft | None]] = {
    "where": _where, "subtitle": _subtitle, "small": _small,
}  # fmt: skip

"""Talk: what is said in a rich scene. It stands in the film's subtitles and has no other trace.

A word is said once in a film, so a word leads to one moment. A line that is said while an object is on screen begins and ends
while it is there; every other line keeps at least `APART_S` from all objects, so that the lines said around an object are
its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from .scene import Event, Line

WORDS = (
    "anchor", "basket", "bridge", "candle", "carpet", "castle", "coffee", "desert", "doctor", "dragon", "engine", "farmer",
    "feather", "garden", "guitar", "hammer", "harbour", "island", "jacket", "kettle", "ladder", "lantern", "letter", "market",
    "mirror", "monkey", "needle", "painter", "pepper", "pillow", "planet", "pocket", "rabbit", "saddle", "shadow", "spider",
    "teacher", "temple", "ticket", "tunnel", "turtle", "violin", "wagon", "window",
)  # fmt: skip
SENTENCES = (
    "Where is the {w}?", "I can see the {w}.", "Did you bring the {w}?", "The {w} is over there.", "Look at the {w}!",
    "We lost the {w}.", "Nobody wants the {w}.", "Tell me about the {w}.",
)  # fmt: skip
SPOKEN = 0.8
"""Share of the objects during which something is said."""
APART_S = 8.0


def make_lines(rng: random.Random, events: Sequence[Event], lone: Sequence[int], duration_s: float) -> tuple[Line, ...]:
    """The talk of a scene, in order of time; during at least one of the `lone` events something is said."""
    words = list(WORDS)
    rng.shuffle(words)
    spoken = {i for i in range(len(events)) if rng.random() < SPOKEN} | {rng.choice(list(lone))}
    lines = [_during(rng, events[i], words.pop()) for i in sorted(spoken)]
    for _ in range(rng.randint(6, 12)):
        # Whole seconds: what a model copies into a call and reads off a frame is then the same number.
        start_s = float(rng.randint(4, int(duration_s) - 8))
        end_s = start_s + rng.choice((2.0, 2.5, 3.0))
        clear = all(end_s + APART_S <= e.start_s or e.end_s + APART_S <= start_s for e in events)
        if clear and all(end_s + 1 <= other.start_s or other.end_s + 1 <= start_s for other in lines):
            lines.append(_line(rng, start_s, end_s, words.pop()))
    return tuple(sorted(lines, key=lambda line: line.start_s))


def _during(rng: random.Random, event: Event, word: str) -> Line:
    start_s = float(math.ceil(event.start_s) + rng.randint(0, 1))
    end_s = min(start_s + rng.choice((2.0, 2.5)), event.end_s)
    return _line(rng, start_s, end_s, word)


def _line(rng: random.Random, start_s: float, end_s: float, word: str) -> Line:
    return Line(start_s=start_s, end_s=end_s, text=rng.choice(SENTENCES).format(w=word), word=word)

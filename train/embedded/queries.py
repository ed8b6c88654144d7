"""Search sentences for training the embedded CLIP model, and which frames each of them means.

A query asks for a shape, a colour, a digit, any of these together, any object, or an empty frame. A frame answers it
when it shows everything that is asked for. Words about motion or time are allowed and mean nothing, since one frame
cannot show them: "red star moving left" is any red star.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...world.scene import COLOURS, MOTIONS, SHAPES
from .codes import Percept

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ANY_DIGIT = -1


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for; None asks for nothing of the kind. `empty` asks for a frame without an object."""

    shape: int | None = None
    colour: int | None = None
    digit: int | None = None
    """0 to 9, or ANY_DIGIT."""
    empty: bool = False

    def matches(self, percept: Percept | None) -> bool:
        """Whether a frame that shows `percept` answers the query."""
        if percept is None or self.empty:
            return self.empty and percept is None
        shown = percept.digit - 1
        right_digit = self.digit is None or self.digit == shown or (self.digit == ANY_DIGIT and shown >= 0)
        return right_digit and self.shape in (None, percept.shape) and self.colour in (None, percept.colour)


def random_query(rng: np.random.Generator) -> Query:
    """A query; those for a coloured shape, what an agent asks most, come most often."""
    shape, colour, digit = int(rng.integers(len(SHAPES))), int(rng.integers(len(COLOURS))), int(rng.integers(10))
    kinds = (
        (0.46, Query(shape=shape, colour=colour)),
        (0.12, Query(shape=shape)),
        (0.12, Query(colour=colour)),
        (0.08, Query(digit=digit)),
        (0.08, Query(shape=shape, colour=colour, digit=digit)),
        (0.03, Query(shape=shape, digit=digit)),
        (0.03, Query(colour=colour, digit=digit)),
        (0.02, Query(shape=shape, colour=colour, digit=ANY_DIGIT)),
        (0.02, Query(digit=ANY_DIGIT)),
        (0.02, Query()),
        (0.02, Query(empty=True)),
    )
    return kinds[rng.choice(len(kinds), p=[share for share, _ in kinds])][1]


FRAMES = (
    "{}", "{}", "{}", "a {}", "the {}", "any {}", "{} on screen", "a photo of a {}", "an image of a {}",
    "a frame with a {}", "a video of a {}", "find the {}", "show me the {}", "where is the {}?", "when is the {} on screen?",
    "when does the {} appear?", "the {} appears", "which way does the {} move?", "how many times does the {} appear?",
    "in which direction does the {} move?", "what comes after the {}?", "what appears before the {}",
    "what colour is the {}?", "what shape is the {}?", "how often is the {} seen?", "count the {}", "{} frame",
)  # fmt: skip
EMPTY = (
    "nothing", "empty background", "background", "an empty frame", "no object", "nothing on screen", "only background",
    "empty", "an empty background", "nothing there",
)  # fmt: skip
ANYTHING = ("something", "an object", "a shape", "any object", "object")
DIGITS = ("{n} with a {d}", "{n} with {d}", "{d} on a {n}", "{n} {d}", "the {d} on the {n}", "what {d} is on the {n}?")


class _Wording:
    """Choices of words by one random generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def pick(self, *options: str) -> str:
        return options[self._rng.integers(len(options))]

    def number(self, digit: int) -> str:
        if digit == ANY_DIGIT:
            return self.pick("digit", "number")
        return self.pick("", "digit ", "number ") + self.pick(str(digit), str(digit), NUMBER_WORDS[digit])

    def noun(self, query: Query) -> str | None:
        shape = None if query.shape is None else SHAPES[query.shape]
        colour = None if query.colour is None else COLOURS[query.colour]
        if shape and colour:
            return f"{colour} {shape}"
        if colour:
            return self.pick(
                colour, colour, f"{colour} object", f"{colour} thing", f"{colour} shape", f"something {colour}"
            )
        return shape

    def moving(self) -> str:
        motion = self.pick(*MOTIONS)
        return " standing still" if motion == "still" else self.pick(" moving ", " moves ", " going ") + motion


def query_text(query: Query, rng: np.random.Generator) -> str:
    """One of the many ways to say `query`."""
    words = _Wording(rng)
    if query.empty:
        return words.pick(*EMPTY)
    noun = words.noun(query)
    if query.digit is not None:
        number = words.number(query.digit)
        noun = words.pick(*DIGITS).format(n=noun, d=number) if noun else number
    elif noun is None:
        return words.pick(*ANYTHING)
    elif rng.random() < 0.15:
        noun += words.moving()
    return words.pick(*FRAMES).format(noun)


def plain_queries() -> list[tuple[str, Query]]:
    """Every query of the common kinds in its plainest words, for measuring."""
    found = [("nothing", Query(empty=True))]
    found += [(shape, Query(shape=i)) for i, shape in enumerate(SHAPES)]
    found += [(colour, Query(colour=i)) for i, colour in enumerate(COLOURS)]
    found += [(f"{c} {s}", Query(shape=i, colour=j)) for i, s in enumerate(SHAPES) for j, c in enumerate(COLOURS)]
    found += [(f"a digit {digit}", Query(digit=digit)) for digit in range(10)]
    return found

"""The percept code: what the vision tower is trained to say about a frame, as one vector in R^256.

Each fact a frame can show has a fixed unit vector, all 34 at right angles: 1 for an empty frame, 6 shapes, 6 colours,
5 columns, 5 rows, and 11 for the digit (none, 0 to 9). The code of a frame with an object is the sum of its shape,
colour, column, row and digit vectors; the code of an empty frame is the vector for nothing, scaled by sqrt(5). So every
code has length sqrt(5), and a language model can train on codes alone before it ever meets a picture. The vectors are
those of a QR decomposition of a seeded Gaussian matrix with the signs of R's diagonal made positive: the same on any
machine up to rounding.

A crop cut out of an object (`frame_code` with a box) shows its colour, the small digit, and where its centre lies in the crop,
but too little of its outline to tell a circle from a square: what it cannot show, the shape, is left out of its code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...world.scene import BINS, COLOURS, SHAPES, Event, Scene, position_bin

CODE_DIM = 256
CODE_SEED = 20_26
DIGIT_NAMES = ("none", *map(str, range(10)))
FACTORS: dict[str, int] = {
    "nothing": 1,
    "shape": len(SHAPES),
    "colour": len(COLOURS),
    "x": BINS,
    "y": BINS,
    "digit": len(DIGIT_NAMES),
}
"""How many vectors each factor has, in the order of the rows of `code_vectors`."""
CODE_NORM = 5**0.5
UNTOLD = -1
"""In place of an index: what a frame cannot tell."""


@dataclass(frozen=True, slots=True)
class Percept:
    """What a frame shows, as indices into the factors; None stands for an empty frame."""

    shape: int
    """`UNTOLD` in a crop."""
    colour: int
    x: int
    y: int
    digit: int
    """0 is no digit, 1 + d is digit d."""


@lru_cache(maxsize=1)
def code_vectors() -> np.ndarray:
    """The (34, 256) float32 matrix of orthonormal rows."""
    count = sum(FACTORS.values())
    gaussian = np.random.Generator(np.random.PCG64(CODE_SEED)).standard_normal((CODE_DIM, count))
    q, r = np.linalg.qr(gaussian)
    vectors = (q * np.sign(np.diag(r))).T.astype(np.float32)
    vectors.setflags(write=False)
    return vectors


def factor_rows(factor: str) -> slice:
    """The rows of `code_vectors` that belong to `factor`."""
    start = 0
    for name, count in FACTORS.items():
        if name == factor:
            return slice(start, start + count)
        start += count
    raise KeyError(factor)


def percept_at(event: Event | None, t_s: float) -> Percept | None:
    """What `event` looks like at `t_s`; None for no event."""
    if event is None:
        return None
    x, y = event.position(t_s)
    return Percept(
        SHAPES.index(event.shape),
        COLOURS.index(event.colour),
        position_bin(x),
        position_bin(y),
        0 if event.digit is None else 1 + event.digit,
    )


def percept_code(percept: Percept | None) -> np.ndarray:
    """The (256,) float32 code of a percept."""
    vectors = code_vectors()
    if percept is None:
        return vectors[0] * np.float32(CODE_NORM)
    facts = {name: getattr(percept, name) for name in FACTORS if name != "nothing"}
    return vectors[[factor_rows(name).start + i for name, i in facts.items() if i != UNTOLD]].sum(0)


def event_code(event: Event | None, t_s: float) -> np.ndarray:
    """The (256,) float32 code of a frame that shows `event` at `t_s`."""
    return percept_code(percept_at(event, t_s))


def crop_percept(event: Event | None, t_s: float, box: tuple[float, float, float, float]) -> Percept | None:
    """What a crop to `box` (left, top, right, bottom as shares of the frame) shows of `event` at `t_s`."""
    if event is None:
        return None
    x, y = event.position(t_s)
    return Percept(
        UNTOLD,
        COLOURS.index(event.colour),
        position_bin((x - box[0]) / (box[2] - box[0])),
        position_bin((y - box[1]) / (box[3] - box[1])),
        0 if event.small_digit is None else 1 + event.small_digit,
    )


def frame_code(scene: Scene, t_s: float, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """The (256,) float32 code of the frame of `scene` at `t_s`, or of the part of it in `box`."""
    if box is not None:
        return percept_code(crop_percept(scene.event_at(t_s), t_s, box))
    return event_code(scene.event_at(t_s), t_s)


def decode_code(code: np.ndarray) -> Percept | None:
    """The percept whose code is nearest to a (256,) vector; None when an empty frame's code is nearest.

    All codes of whole frames have the same length, so the nearest is the one with the largest dot product, which is found per
    factor. The shape that is read off a crop's code means nothing.
    """
    scores = code_vectors() @ np.asarray(code, np.float32)
    parts = {name: scores[factor_rows(name)] for name in FACTORS}
    best = {name: int(part.argmax()) for name, part in parts.items() if name != "nothing"}
    if scores[0] * CODE_NORM >= sum(float(parts[name][index]) for name, index in best.items()):
        return None
    return Percept(**best)

"""Scene: the script of a made-up video, from which its pixels, its questions and their answers all follow.

A scene is a changing background with rare short events. An event is one object (shape, colour, perhaps a digit on it)
that is on screen for a few seconds and moves one way. Events never overlap. Everything is a pure function of the
scene's fields, so the truth about a second of video is looked up, never annotated.

A plain scene is all pictures. A rich one has the same events and two things more, which need other tools to be found: digits
too small to be read unless a part of the frame is cut out (`Event.small_digit`), and things said (`Scene.lines`), which are
heard nowhere and stand in the film's subtitles only. A hazy one, plain or rich, has its objects fainter (`Scene.haze`),
which makes all that is seen harder to read and changes no answer.
"""

from __future__ import annotations

from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "yellow", "green", "cyan", "blue", "pink")
MOTIONS = ("left", "right", "up", "down", "still")
BINS = 5
"""Positions are told to one of 5 columns and rows (0 left or top)."""
NEAR, FAR = 0.24, 0.76
"""Centres of objects stay in this range of the frame, so that an object is always seen whole."""
FILM_SIZE = 192
RICH_SIZE = 384
"""Width and height of a rich film: of a sixth of it, 64 pixels are left for a model that sees frames at 64 pixels."""
FILM_FPS = 8
CROP = 0.17
"""Width of the part of the frame in which a small digit is as large as a digit is in the whole frame. It is just wide enough to
hold the digit whole around the middle of the column and row in which the object's centre lies."""
PLACES = ("top left", "top right", "bottom left", "bottom right")


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One appearance: from `start_s` to `end_s` the centre goes from (x0, y0) to (x1, y1), in units of the frame.

    `size` is the object's width as a share of the frame (0.40 to 0.50).
    """

    start_s: float
    end_s: float
    shape: str
    colour: str
    motion: str
    x0: float
    y0: float
    x1: float
    y1: float
    size: float = 0.46
    digit: int | None = None
    small_digit: int | None = None
    """On a plate a thirtieth as wide as the frame: read in a crop only. An object has one kind of digit at most."""

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    def position(self, t_s: float) -> tuple[float, float]:
        """Centre at `t_s`, clamped to the event's own time."""
        share = min(1.0, max(0.0, (t_s - self.start_s) / (self.end_s - self.start_s)))
        return self.x0 + share * (self.x1 - self.x0), self.y0 + share * (self.y1 - self.y0)


def position_bin(u: float) -> int:
    """Which of the 5 columns or rows a centre coordinate falls into."""
    return min(BINS - 1, max(0, int((u - NEAR) / (FAR - NEAR) * BINS)))


def cell_box(x: int, y: int, width: float) -> tuple[int, int, int, int]:
    """The box `width` wide around the middle of a column and row (see `position_bin`), in thousandths, rounded to tens: a short
    table, so that whoever reads a position can name the box without reckoning."""
    sides = []
    for axis in (x, y):
        middle = NEAR + (axis + 0.5) * (FAR - NEAR) / BINS
        low = round((middle - width / 2) * 100) * 10
        sides.append((low, low + round(width * 1000)))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """Something said: a sentence with one thing in it (`word`), from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    text: str
    word: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A whole video: its background follows from `seed`, its events are in order of time."""

    seed: int
    duration_s: float
    events: tuple[Event, ...]
    fps: int = FILM_FPS
    size: int = FILM_SIZE
    lines: tuple[Line, ...] = ()
    haze: float = 0.0
    """Share of an object that the background takes, 0 to below 1: what is drawn has an opacity of `1 - haze`."""

    def event_at(self, t_s: float) -> Event | None:
        """The event on screen at `t_s`, or None."""
        return next((e for e in self.events if e.start_s <= t_s < e.end_s), None)

    def line_at(self, t_s: float) -> Line | None:
        """What is being said at `t_s`, or None."""
        return next((line for line in self.lines if line.start_s <= t_s < line.end_s), None)

"""Box: a rectangle on the screen at one moment of a video.

Coordinates are shares of the frame's width and height, 0 to 1, from the top left corner. In text (what a model writes and
reads) they are thousandths, 0 to 1000, in the order left, top, right, bottom: the form in which Qwen3-VL writes boxes. So a
box does not depend on the size at which a frame was shown.

    753.0: 170,370,630,830          inside <box>...</box>, several separated by "; "
"""

from __future__ import annotations

from dataclasses import dataclass

THOUSAND = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """`[x0, x1) x [y0, y1)` of the frame that is shown at `time_s`.

    Raises:
        ValueError: it is empty, or not inside the frame.
    """

    video_id: str
    time_s: float
    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        inside = 0 <= self.x0 < self.x1 <= 1 and 0 <= self.y0 < self.y1 <= 1
        if not inside or not abs(self.time_s) < float("inf"):
            raise ValueError(f"a box needs 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 at a finite time; got {self}")

    @property
    def area(self) -> float:
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    def iou(self, other: Box) -> float:
        """Intersection over union of the two rectangles, in [0, 1], whatever their times; 0 across videos."""
        if self.video_id != other.video_id:
            return 0.0
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        shared = max(0.0, width) * max(0.0, height)
        return shared / (self.area + other.area - shared)

    @property
    def text(self) -> str:
        """As models write it: "753.0: 170,370,630,830"."""
        sides = ",".join(str(round(side * THOUSAND)) for side in (self.x0, self.y0, self.x1, self.y1))
        return f"{self.time_s:.1f}: {sides}"

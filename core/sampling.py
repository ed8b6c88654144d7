"""Which times to look at. Pure functions from durations to seconds; `Video` turns times into frames.

uniform    n times spread over the whole
fps        a steady rate inside a stretch
window     n times around a moment
keyframe   uniform times, answered with the nearest keyframe before (`Video.keyframes_at`): cheap, and labelled with
           the frame's true time
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def uniform_times(duration_s: float, n: int) -> list[float]:
    """The centres of `n` equal parts of `[0, duration_s)`.

    Raises:
        ValueError: `n` is negative, or the duration is not a positive number.
    """
    if n < 0:
        raise ValueError(f"the number of times must be 0 or more; got {n}")
    if not 0 < duration_s < math.inf:
        raise ValueError(f"a duration must be a positive number of seconds; got {duration_s}")
    return [duration_s * (i + 0.5) / n for i in range(n)]


def thinned(times_s: Sequence[float], n: int) -> list[float]:
    """At most `n` of the times, spread evenly over them, in their order."""
    if n >= len(times_s):
        return list(times_s)
    return [times_s[int((i + 0.5) * len(times_s) / n)] for i in range(n)]


def fps_times(start_s: float, end_s: float, fps: float) -> list[float]:
    """`start_s`, then every 1/fps seconds, before `end_s`; never less than the start of a stretch that is not empty.

    Raises:
        ValueError: a rate that is not positive, or bounds that are not finite.
    """
    if not 0 < fps < math.inf:
        raise ValueError(f"fps must be a positive number; got {fps}")
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        raise ValueError(f"a stretch needs finite bounds; got {start_s} to {end_s}")
    # A frame that would fall on the end itself, but for rounding, is not wanted.
    count = max(0, math.ceil((end_s - start_s) * fps - 1e-6))
    return [start_s + i / fps for i in range(count)]


def window_times(centre_s: float, width_s: float, n: int, duration_s: float) -> list[float]:
    """The centres of `n` equal parts of the stretch of `width_s` around `centre_s`, moved to lie inside the video."""
    width_s = min(width_s, duration_s)
    start_s = min(max(0.0, centre_s - width_s / 2), duration_s - width_s)
    return [start_s + t for t in uniform_times(width_s, n)]

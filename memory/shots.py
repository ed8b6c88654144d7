"""Shots: where the picture changes at once.

The change between two frames is the mean absolute difference of hue, saturation and value, averaged over the three
(each in 0..255), on frames scaled down. A cut is a frame whose change is at least `MIN_CHANGE` and `ADAPTIVE_RATIO`
times the mean change of the two frames before and the two after it, so that fast camera motion, which changes many
frames in a row, is no cut. Source: the content score and the rolling average of PySceneDetect's ContentDetector and
AdaptiveDetector (scenedetect.com, BSD-3), with their defaults; two cuts lie at least `MIN_SHOT_S` apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..core.decoders.contract import DecodedFrame
from ..core.video import Video
from .store import ArrayStore, Report

ADAPTIVE_RATIO = 3.0
WINDOW = 2
MIN_CHANGE = 15.0
MIN_SHOT_S = 0.5
SIDE = 128
"""Frames are scaled to about this many pixels on the longer side: a cut is a matter of the whole picture."""
VERSION = 1
"""Raise it when the detector changes: saved cuts of another version are not used."""


def shot_bounds(
    video: Video,
    longest_s: float,
    *,
    root: Path | None,
    report: Report,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Bounds of the shots of a video, those longer than `longest_s` split into equal parts.

    Returns:
        (M+1,) rising seconds from 0 to the end of what can be read; shot i is [bounds[i], bounds[i+1]).
    """
    store, key = ArrayStore(root, report), f"cuts-{video.id}-v{VERSION}"
    saved = store.load(key)
    if saved is None or "cuts_s" not in saved or saved["cuts_s"].ndim != 1:
        cuts_s = detect_cuts(_watched(video, progress))
        saved = {"cuts_s": np.array(cuts_s, np.float64)}
        store.save(key, saved)
    edges = [0.0, *(float(t) for t in saved["cuts_s"] if 0.0 < t < video.readable_s), video.readable_s]
    bounds = [0.0]
    for start_s, end_s in pairwise(edges):
        parts = max(1, math.ceil((end_s - start_s) / longest_s - 1e-6))
        bounds += [start_s + (end_s - start_s) * (i + 1) / parts for i in range(parts)]
    return np.array(bounds)


def detect_cuts(frames: Iterable[DecodedFrame], min_shot_s: float = MIN_SHOT_S) -> list[float]:
    """Times of the first frame after each cut, in seconds. `frames` are all frames of a stretch in order, one size."""
    times: list[float] = []
    changes: list[float] = []
    before: np.ndarray | None = None
    for frame in frames:
        now = _hsv(frame.pixels)
        times.append(frame.timestamp_s)
        changes.append(0.0 if before is None else float(np.abs(now - before).mean()))
        before = now
    cuts: list[float] = []
    for i in range(1, len(times)):
        if _is_peak(changes, i) and times[i] - (cuts[-1] if cuts else times[0]) >= min_shot_s:
            cuts.append(times[i])
    return cuts


def _watched(video: Video, progress: Callable[[float], None] | None) -> Iterator[DecodedFrame]:
    for i, frame in enumerate(video.read(0.0, video.readable_s, fps=None, size=_small(video))):
        if progress and i % 100 == 0:
            progress(min(1.0, frame.timestamp_s / video.readable_s))
        yield frame


def _is_peak(changes: list[float], i: int) -> bool:
    # The first frame has no change to compare with, so it is left out rather than counted as a calm one.
    around = changes[max(1, i - WINDOW) : i] + changes[i + 1 : i + 1 + WINDOW]
    calm = sum(around) / len(around) if around else 0.0
    return changes[i] >= MIN_CHANGE and changes[i] >= ADAPTIVE_RATIO * calm


def _hsv(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB to hue (0..179, as OpenCV has it), saturation and value (0..255), float32 (3, H, W)."""
    rgb = pixels.astype(np.float32)
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value = rgb.max(axis=-1)
    spread = value - rgb.min(axis=-1)
    safe = np.maximum(spread, 1e-6)
    sector = np.where(value == r, (g - b) / safe, np.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    hue = np.where(spread > 0, (sector * 30) % 180, 0)
    saturation = np.where(value > 0, 255 * spread / np.maximum(value, 1), 0)
    return np.stack([hue, saturation, value])


def _small(video: Video) -> tuple[int, int] | None:
    scale = SIDE / max(video.width, video.height)
    return None if scale >= 1 else (max(1, round(video.width * scale)), max(1, round(video.height * scale)))

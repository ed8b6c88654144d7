"""crop_frame: look closer at a part of the picture, at the video's own resolution."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from ..core.decoders.contract import DecodedFrame
from ..core.nouns import Frame
from .contract import ToolContext, ToolFault, ToolResult, check_time, need_frames
from .format import crop_content

THOUSAND = 1000
SMALLEST = 20
"""Thousandths: anything narrower is a handful of pixels (or a box written in shares instead of thousandths)."""
FORM = "Write [left, top, right, bottom] in thousandths of the frame, 0 to 1000, for example [250, 250, 500, 500]"


def crop_frame(
    ctx: ToolContext,
    time_s: float,
    box: Annotated[list[float], Field(min_length=4, max_length=4)],
) -> ToolResult:
    """Look closer at a part of one frame: cuts a box out of it at the video's full resolution.

    Args:
        time_s: the time of the frame, in seconds.
        box: left, top, right, bottom in thousandths of the frame's width and height (0 to 1000).
    """
    check_time("time_s", time_s, ctx.video)
    _check_box(box)
    need_frames(ctx)

    def decode(_: list[int]) -> list[Frame]:
        (decoded,) = ctx.video.frames_at([time_s], None)
        cut, sides = cut_out(decoded.pixels, box, ctx.max_side)
        stored = ctx.store.put(ctx.video.id, DecodedFrame(timestamp_s=decoded.timestamp_s, pixels=cut))
        return [replace(stored, box=sides)]

    (frame,) = ctx.store.shown.frames([(ctx.video.id, ctx.video.decoder, time_s, ctx.max_side, *box)], decode)
    return ToolResult(content=crop_content(frame), clips=(ctx.looked_at(frame, 1.0),))


def cut_out(
    pixels: np.ndarray, box: list[float], max_side: int
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """The part of (H, W, 3) `pixels` inside `box` (thousandths), grown to whole pixels and shrunk to at most `max_side` on
    its longer side; and the box as shares of the frame, as it was asked for."""
    height, width, _ = pixels.shape
    x0, y0, x1, y1 = (side / THOUSAND for side in box)
    # A thousandth is a fraction of a pixel in most videos: a hair over an edge does not take in the next pixel.
    left, right = math.floor(x0 * width + 1e-6), math.ceil(x1 * width - 1e-6)
    top, bottom = math.floor(y0 * height + 1e-6), math.ceil(y1 * height - 1e-6)
    cut = np.ascontiguousarray(pixels[top:bottom, left:right])
    scale = max_side / max(cut.shape[:2])
    if scale < 1:
        from PIL import Image

        size = max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale))
        cut = np.asarray(Image.fromarray(cut).resize(size, Image.Resampling.BICUBIC))
    return cut, (x0, y0, x1, y1)


def _check_box(box: list[float]) -> None:
    x0, y0, x1, y1 = box
    said = f"box [{', '.join(f'{side:g}' for side in box)}]"
    if min(box) < 0 or max(box) > THOUSAND:
        raise ToolFault(f"{said} is outside the frame. {FORM}.")
    if x1 <= x0 or y1 <= y0:
        raise ToolFault(f"{said} is empty: right must be more than left, bottom more than top. {FORM}.")
    if min(x1 - x0, y1 - y0) < SMALLEST:
        raise ToolFault(f"{said} is too small, at least {SMALLEST} by {SMALLEST} are needed. {FORM}.")

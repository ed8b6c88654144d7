"""temporal_zoom: what happens in these seconds? Frames of a stretch, at a rate the model chooses."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from ..core.nouns import Frame
from ..core.sampling import fps_times
from .contract import ToolContext, ToolResult, need_frames, stretch
from .format import zoom_content

MAX_FRAMES = 16
CLOSE_STEP_S = 2.0
"""Frames at most this far apart count as having looked at the whole stretch."""


def temporal_zoom(
    ctx: ToolContext,
    start_s: float,
    end_s: float,
    fps: Annotated[float, Field(ge=0.05, le=30)] = 1.0,
) -> ToolResult:
    """Look closely at a stretch of the video: shows its frames in order, 16 at most.

    Args:
        start_s: where the stretch starts, in seconds.
        end_s: where it ends, in seconds.
        fps: frames per second.
    """
    clip = stretch(ctx, start_s, end_s)
    limit = min(MAX_FRAMES, need_frames(ctx))
    asked = fps_times(clip.start_s, clip.end_s, fps)
    # Every frame asked for, or every second, third ...: the times stay those the model thinks in.
    every = math.ceil(len(asked) / limit)
    step_s = every / fps
    frames: list[Frame] = []
    for frame in ctx.frames_at(asked[::every]):
        # A video slower than `fps` shows one frame at several times.
        if not frames or frame.timestamp_s > frames[-1].timestamp_s:
            frames.append(frame)
    content = zoom_content(clip, ctx.video.readable_s, frames, step_s, limit=limit if every > 1 else None)
    close = step_s <= CLOSE_STEP_S
    return ToolResult(content=content, clips=(clip,) if close else tuple(ctx.looked_at(f, 1.0) for f in frames))

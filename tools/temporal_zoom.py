"""temporal_zoom: what happens in these seconds? Frames of a stretch, at a rate the model chooses."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from ..core.nouns import Clip, Frame
from ..core.sampling import fps_times
from .contract import ToolContext, ToolFault, ToolResult, check_time, need_frames
from .format import zoom_content

MAX_FRAMES = 16
CLOSE_STEP_S = 2.0
"""Frames at most this far apart count as having looked at the whole stretch."""
END_SLACK_S = 1.0
"""A model reads the duration rounded, and may end a little after it."""
SHORTEST_S = 0.05
"""Times are written with one decimal: anything shorter starts and ends at the same time for the model."""


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
    clip = _stretch(ctx, start_s, end_s)
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


def _stretch(ctx: ToolContext, start_s: float, end_s: float) -> Clip:
    duration_s = ctx.video.readable_s
    check_time("start_s", start_s, ctx.video)
    if duration_s < end_s <= duration_s + END_SLACK_S:
        end_s = duration_s
    check_time("end_s", end_s, ctx.video)
    if end_s - start_s < SHORTEST_S:
        raise ToolFault(f"end_s {end_s:.1f} must be after start_s {start_s:.1f}.")
    return Clip(video_id=ctx.video.id, start_s=start_s, end_s=end_s)

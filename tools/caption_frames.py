"""caption_frames: put frames into words that stay. Captions are remembered, and found by `search_clips`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..core.aio import in_thread
from .contract import ToolContext, ToolFault, ToolResult, check_time, need_frames
from .format import captions_content

MAX_FRAMES = 16


async def caption_frames(
    ctx: ToolContext,
    times_s: Annotated[list[float], Field(min_length=1, max_length=MAX_FRAMES)],
) -> ToolResult:
    """Describe the frames shown at some times in words, and remember the descriptions for later searches.

    Args:
        times_s: the times in seconds, 16 at most.
    """
    if ctx.captioner is None:
        raise ToolFault("this model cannot describe frames. Use temporal_zoom to look at them.")
    for t in times_s:
        check_time("times_s", t, ctx.video)
    left = need_frames(ctx)
    if len(times_s) > left:
        raise ToolFault(f"only {left} frames of the budget are left. Ask for at most {left} times.")
    frames = await in_thread(ctx.frames_at, times_s)
    captions = await ctx.captioner.caption(frames)
    clips = tuple(ctx.looked_at(frame, 1.0) for frame in frames)
    for clip, caption in zip(clips, captions, strict=True):
        ctx.remember(clip, "caption", caption)
    return ToolResult(content=captions_content(times_s, captions), clips=clips)

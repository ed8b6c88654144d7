"""search_subtitles: what is said, and when. Subtitle files beside the video and subtitle streams inside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ..core.nouns import Clip
from .contract import ToolContext, ToolFault, ToolResult, stretch
from .format import lines_content

MAX_LINES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    clip: Clip
    text: str


def search_subtitles(
    ctx: ToolContext,
    query: Annotated[str, Field(max_length=400)],
    k: Annotated[int, Field(ge=1, le=MAX_LINES)] = 3,
    start_s: float = 0.0,
    end_s: float = 0.0,
) -> ToolResult:
    """Find what is said in the subtitles: lines with their times, by words, by time, or both.

    Args:
        query: words to look for; empty for every line of a stretch.
        k: how many lines at most.
        start_s: only lines from here on, in seconds.
        end_s: only lines before this; 0 for the end of the video.
    """
    subtitles = ctx.subtitles
    if not subtitles.cues:
        broken = f" ({subtitles.skipped} could not be read)" if subtitles.skipped else ""
        raise ToolFault(f"this video has no subtitles{broken}. Use search_clips and temporal_zoom to look at it.")
    query = query.strip()
    clip = stretch(ctx, start_s, end_s or ctx.video.readable_s) if start_s or end_s else None
    within = None if clip is None else (clip.start_s, clip.end_s)
    if query:
        # One more than asked for tells whether there are more.
        found = subtitles.search(query, k + 1, within)
    else:
        found = subtitles.between(*(within or (0.0, ctx.video.duration_s)), k + 1)
    lines = [_Line(clip=Clip(video_id=ctx.video.id, start_s=c.start_s, end_s=c.end_s), text=c.text) for c in found[:k]]
    content = lines_content("lines", lines, query=query, within=within, more=len(found) > k)
    return ToolResult(content=content, clips=tuple(line.clip for line in lines))

"""search_clips: where in the video is it? Moments that match a description, each with its best frame."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..memory.index import Hit
from .contract import ToolContext, ToolFault, ToolResult, need_frames
from .format import hits_content

MAX_MOMENTS = 16
"""Shown at once, however many descriptions were searched for: each costs the model's context a frame."""
CAPTION_SCORE = 1.0
"""A remembered caption that holds every word of the query outranks any picture: no cosine is higher."""


def search_clips(
    ctx: ToolContext,
    query: Annotated[str, Field(min_length=1, max_length=400)],
    k: Annotated[int, Field(ge=1, le=MAX_MOMENTS)] = 3,
) -> ToolResult:
    """Find moments of the video that match a description. Shows the best frame of each moment.

    Args:
        query: what to look for; several descriptions may be separated by ";".
        k: how many moments for each description.
    """
    most = min(MAX_MOMENTS, need_frames(ctx))
    queries = [q.strip() for q in query.split(";") if q.strip()]
    if not queries:
        raise ToolFault('query names nothing to look for. Write for example {"query": "red star", "k": 3}.')
    found = [hit for q in queries for hit in _search(ctx, q, k)]
    hits = best_moments(found, ctx.index.moment_gap_s(), most)
    frames = ctx.frames_at([hit.best_s for hit in hits])
    # What was looked at is the shown frame, not the window around it that it stands for.
    clips = tuple(ctx.looked_at(frame, 1 / ctx.index.params.fps) for frame in frames)
    return ToolResult(content=hits_content(query, hits, frames), clips=clips)


def best_moments(hits: list[Hit], gap_s: float, most: int) -> list[Hit]:
    """The `most` best hits, best first; of two whose best frames are closer than `gap_s` only the better is kept."""
    kept: list[Hit] = []
    for hit in sorted(hits, key=lambda h: (-h.score, h.best_s)):
        if len(kept) < most and all(abs(hit.best_s - other.best_s) >= gap_s for other in kept):
            kept.append(hit)
    return kept


def _search(ctx: ToolContext, query: str, k: int) -> list[Hit]:
    """The k best moments for one description, by pictures and by captions."""
    seen = ctx.index.search(query, k)
    told = [
        Hit(clip=ctx.index.clip_at(note.clip.start_s), score=CAPTION_SCORE, best_s=note.clip.start_s)
        for note in ctx.texts.search(ctx.video.id, query, k, every_word=True, kind="caption")
    ]
    return best_moments(told + seen, ctx.index.moment_gap_s(), k)

"""note and recall: evidence that outlives the question.

A note is a sentence about a stretch of the video. With a notebook (`VideoAgent(notebook=...)`) notes and descriptions are
kept on disk for the next question about the same video; without one they last as long as the run.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .contract import ToolContext, ToolFault, ToolResult, stretch
from .format import clip_text, lines_content

MAX_NOTES = 500
"""In a notebook, for one video."""
MAX_RECALLED = 16


def note(
    ctx: ToolContext,
    text: Annotated[str, Field(min_length=1, max_length=400)],
    start_s: float,
    end_s: float,
) -> ToolResult:
    """Write down what a stretch of the video shows, for later and for other questions about this video.

    Args:
        text: what is seen or said there, in a sentence.
        start_s: where the stretch starts, in seconds.
        end_s: where it ends, in seconds.
    """
    clip = stretch(ctx, start_s, end_s)
    if ctx.notes.count(ctx.video.id, "note") >= MAX_NOTES:
        raise ToolFault(f"the notebook is full ({MAX_NOTES} notes). Use recall to read it.")
    ctx.notes.add(ctx.video.id, clip, "note", text)
    return ToolResult(content=(f"Noted for {clip_text(clip.start_s, clip.end_s)}.\n",))


def recall(
    ctx: ToolContext,
    query: Annotated[str, Field(max_length=400)],
    k: Annotated[int, Field(ge=1, le=MAX_RECALLED)] = 5,
) -> ToolResult:
    """Look up what was noted or described of this video before, also for earlier questions.

    Args:
        query: words to look for; empty for the first entries in order of time.
        k: how many entries at most.
    """
    query = query.strip()
    notes = ctx.notes
    found = notes.search(ctx.video.id, query, k + 1) if query else notes.listing(ctx.video.id, k + 1)
    # Reading a note is not looking at the video: no stretch counts as seen.
    return ToolResult(content=lines_content("notes", found[:k], query=query, more=len(found) > k))

"""browse: what is in this stretch? Its shots, each with one frame and a description."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..core.aio import in_thread
from ..core.nouns import Clip, Frame
from ..memory.shots import SIDE, detect_cuts
from .contract import ToolContext, ToolFault, ToolResult, frame_size, need_frames, stretch
from .format import browse_content

MAX_SHOTS = 12
SHOTS_WITHIN_S = 240.0
"""Finding cuts means decoding every frame: a longer stretch is shown in equal parts, which can be browsed in turn."""


async def browse(ctx: ToolContext, start_s: float, end_s: float) -> ToolResult:
    """Get an overview of a stretch of the video: its shots in order, each with its frame in the middle and a description.

    Args:
        start_s: where the stretch starts, in seconds.
        end_s: where it ends, in seconds. A stretch longer than 4 minutes is shown in 12 equal parts.
    """
    clip = stretch(ctx, start_s, end_s)
    left = need_frames(ctx)
    whole = clip.duration_s > SHOTS_WITHIN_S
    # A description is one more look at a frame.
    most = min(MAX_SHOTS, left if ctx.captioner is None else max(1, left // 2))
    parts = _equal(clip, most) if whole else _at_most(await in_thread(shots, ctx, clip), most)
    frames = await in_thread(ctx.frames_at, [part.centre_s for part in parts])
    captions = await _captions(ctx, parts, frames, left - len(frames))
    content = browse_content(clip, "parts" if whole else "shots", parts, frames, captions)
    return ToolResult(content=content, clips=tuple(ctx.looked_at(frame, 1.0) for frame in frames))


def shots(ctx: ToolContext, clip: Clip) -> list[Clip]:
    """The shots of a stretch: from cut to cut."""
    video = ctx.video
    cuts = detect_cuts(video.read(clip.start_s, clip.end_s, fps=None, size=frame_size(video, SIDE)))
    edges = [clip.start_s, *(t for t in cuts if clip.start_s < t < clip.end_s), clip.end_s]
    return [Clip(video_id=video.id, start_s=a, end_s=b) for a, b in pairwise(edges)]


def _equal(clip: Clip, n: int) -> list[Clip]:
    edges = [clip.start_s + clip.duration_s * i / n for i in range(n)] + [clip.end_s]
    return [Clip(video_id=clip.video_id, start_s=a, end_s=b) for a, b in pairwise(edges)]


def _at_most(parts: Sequence[Clip], n: int) -> list[Clip]:
    """The n parts that remain when the shortest ones are joined to a neighbour, one after the other."""
    kept = list(parts)
    while len(kept) > n:
        i = min(range(len(kept)), key=lambda i: kept[i].duration_s)
        j = i - 1 if i and (i + 1 == len(kept) or kept[i - 1].duration_s <= kept[i + 1].duration_s) else i
        joined = Clip(video_id=kept[j].video_id, start_s=kept[j].start_s, end_s=kept[j + 1].end_s)
        kept[j : j + 2] = [joined]
    return kept


async def _captions(
    ctx: ToolContext, parts: Sequence[Clip], frames: Sequence[Frame], frames_left: int
) -> list[str | None]:
    """What is remembered of each part; where that is nothing, what the captioner says of its frame, while it may."""
    said: list[str | None] = []
    for part in parts:
        known = ctx.notes.listing(ctx.video.id, 8, kind="caption", within=(part.start_s, part.end_s))
        # A caption's clip may reach over the cut: it is about the frame at its start.
        said.append(next((hit.text for hit in known if part.contains(hit.clip.start_s)), None))
    new = [i for i, text in enumerate(said) if text is None]
    if ctx.captioner is None or len(new) > frames_left:
        return said
    try:
        captions = await ctx.captioner.caption([frames[i] for i in new]) if new else []
    except ToolFault:  # nothing left to describe with: the frames are shown all the same
        return said
    for i, caption in zip(new, captions, strict=True):
        ctx.remember(ctx.looked_at(frames[i], 1.0), "caption", caption)
        said[i] = caption
    return said

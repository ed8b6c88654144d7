"""look: answer once more from what an earlier run cited. The step that iterate, refine and best-of-n's evidence check
share.

Where the run had zoomed, the episode is branched there: same beginning, but the cited clip is zoomed into, in the middle of
a stretch as long as the one the model had chosen, moved a little with every look. Else a fresh episode is shown frames of
the cited clips; not so for an agent of habits (`Bench.knows_words`), whose skim was always uniform. Nothing cited: no look.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ...core.budget import Usage
from ...core.clip import Clip, merge_clips
from ...core.sampling import uniform_times
from ...core.trajectory import Trajectory
from .bench import Bench
from .branch import zooming
from .purse import Purse
from .strategy import Outcome

PAD_S = 2.0
"""So much is looked at before and after a cited clip: a moment too short is the commonest fault of a citation."""
SHIFTS = (0, -2, 2, 1, -1)
"""By so many frames the n-th look is moved, so that no two show the same stretch."""


async def look_again(bench: Bench, purse: Purse, seed: int, before: Outcome, turn: int = 0) -> Trajectory | None:
    """A new answer from what `before` cited; None where there is nothing to look at, or no turn to look in.

    Raises:
        Spent: nothing is left to look with.
    """
    clips = merge_clips(before.answer.evidence)
    if not clips:
        return None
    start = _branch(bench, before.trajectory, clips, turn) if bench.manner.tools else None
    if start is not None and purse.budget.left(Usage(turns=len(start["turns"])), "turns") < 1:
        return None
    if start is not None:
        return await bench.episode(purse, seed, start=start)
    if bench.manner.tools and not bench.knows_words:
        return None
    return await bench.episode(purse, seed, times_s=times_in(clips, 8), tools=bench.manner.tools)


async def cited_only(bench: Bench, purse: Purse, seed: int, before: Outcome, frames: int = 8) -> Trajectory | None:
    """An answer from frames of the cited clips alone: no tools, nothing else seen; None where nothing was cited.

    Raises:
        Spent: nothing is left to look with.
    """
    clips = merge_clips(before.answer.evidence)
    if not clips:
        return None
    return await bench.episode(purse, seed, times_s=times_in(clips, frames), tools=False)


def times_in(clips: Sequence[Clip], n: int, context: Sequence[float] = ()) -> tuple[float, ...]:
    """About `n` times over the clips by their length, and those of `context`, in order; one a clip at least."""
    whole = sum(c.duration_s for c in clips) or 1.0
    times = list(context)
    for clip in clips:
        share = max(1, round(n * clip.duration_s / whole))
        times += [clip.start_s + t for t in uniform_times(max(clip.duration_s, 1e-3), share)]
    return tuple(sorted(times))


def _branch(bench: Bench, run: Trajectory | None, clips: Sequence[Clip], turn: int) -> Any:
    """A state that zooms into the longest cited clip; None where the run never zoomed."""
    zoom = None if run is None else _first_zoom(run)
    if run is None or zoom is None:
        return None
    clip = max(clips, key=lambda c: c.duration_s)
    # As long as the zoom that the model chose, and on its grid of times: what a small model was trained to read.
    length_s, fps = max(zoom[0], clip.duration_s + 2 * PAD_S), zoom[1]
    start_s = round((clip.centre_s - length_s / 2) * fps) / fps + SHIFTS[turn % len(SHIFTS)] / fps
    wide = Clip(video_id=clip.video_id, start_s=start_s, end_s=start_s + length_s)
    return zooming(run, wide.clamp(0.0, bench.desk.video.readable_s), fps, bench.agent.policy.renderer)


def _first_zoom(run: Trajectory) -> tuple[float, float] | None:
    """(seconds, frames per second) of the run's first zoom; None where it never zoomed, or not in a way that can be read."""
    for call in (c for t in run.turns for c in t.tool_calls if c.name == "temporal_zoom"):
        try:
            said = json.loads(call.arguments_json)
            length_s, fps = float(said["end_s"]) - float(said["start_s"]), float(said.get("fps", 1.0))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return (length_s, fps) if 0 < length_s < 1e6 and 0.05 <= fps <= 30 else None
    return None

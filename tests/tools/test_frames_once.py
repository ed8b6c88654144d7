"""What tools show is decoded once for a film, whichever tool, call or thread asks."""

import asyncio
import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from playhead.core.frames import FrameStore
from playhead.core.nouns import Observation, ToolCall
from playhead.core.video import Video
from playhead.tools.contract import ToolContext
from playhead.tools.toolbox import default_toolbox


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Any]]:
    """(time, size) of every frame that was really decoded."""
    seen: list[tuple[float, Any]] = []
    real = Video.frames_at

    def counting(self: Video, times_s: Any, size: Any = None) -> Any:
        seen.extend((t, size) for t in times_s)
        return real(self, times_s, size)

    monkeypatch.setattr(Video, "frames_at", counting)
    return seen


def call(ctx: ToolContext, name: str, **arguments: Any) -> Observation:
    made = ToolCall(id="c", name=name, arguments_json=json.dumps(arguments))
    return asyncio.run(default_toolbox([name]).call(made, ctx))


def test_a_second_look_decodes_only_what_is_new(ctx: ToolContext, decoded: list[Any]) -> None:
    first = call(ctx, "temporal_zoom", start_s=20, end_s=24, fps=1)
    assert [t for t, _ in decoded] == [20, 21, 22, 23]
    second = call(ctx, "temporal_zoom", start_s=22, end_s=26, fps=1)
    assert [t for t, _ in decoded[4:]] == [24, 25]
    assert second.frames[:2] == first.frames[2:]
    fresh = Video.open(ctx.video.path).frames_at([22.0], None)[0]
    assert np.array_equal(ctx.store.pixels(second.frames[0]), fresh.pixels)
    again = call(ctx, "temporal_zoom", start_s=20, end_s=24, fps=1)
    assert again.content == first.content and again.clips == first.clips


def test_crops_too_and_each_box_is_its_own(ctx: ToolContext, decoded: list[Any]) -> None:
    box, other = [0, 0, 500, 500], [500, 500, 1000, 1000]
    one, two = (call(ctx, "crop_frame", time_s=21, box=box) for _ in range(2))
    assert len(decoded) == 1 and one.frames == two.frames
    (three,) = call(ctx, "crop_frame", time_s=21, box=other).frames
    assert len(decoded) == 2 and three.box != one.frames[0].box


def test_rollouts_that_look_at_the_same_moment_at_once(ctx: ToolContext, decoded: list[Any]) -> None:
    with ThreadPoolExecutor(6) as pool:
        frames = list(pool.map(lambda _: tuple(ctx.frames_at([60.0, 61.0, 62.0])), range(6)))
    assert len(set(frames)) == 1 and len(decoded) == 3


def test_a_frame_that_left_the_store_is_decoded_again(ctx: ToolContext, decoded: list[Any]) -> None:
    (frame,) = ctx.frames_at([21.0])
    small = dataclasses.replace(ctx, store=FrameStore(memory_bytes=ctx.store.pixels(frame).nbytes))
    for t in (21.0, 62.0, 21.0):
        (shown,) = small.frames_at([t])
        assert small.store.pixels(shown).shape == (frame.height, frame.width, 3)
    assert [t for t, _ in decoded] == [21.0, 21.0, 62.0, 21.0]


def test_shuffled_frames_change_places_and_keep_the_times_asked_for(ctx: ToolContext) -> None:
    """For T-GRPO: the same pictures and the same times, in a wrong order."""
    times = [5.0, 21.0, 62.0, 75.0]
    right, wrong = ctx.frames_at(times), dataclasses.replace(ctx, shuffled=True).frames_at(times)
    assert [f.timestamp_s for f in wrong] == [f.timestamp_s for f in right]
    assert sorted(f.sha256 for f in wrong) == sorted(f.sha256 for f in right)
    assert [f.sha256 for f in wrong] != [f.sha256 for f in right]
    assert dataclasses.replace(ctx, shuffled=True).frames_at(times) == wrong
    assert all(ctx.store.pixels(f).any() for f in wrong)

"""The three tools through the toolbox, on a real film: what they show, what they looked at, what they say to faults."""

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from playhead.core.nouns import Clip, Observation, ToolCall
from playhead.tools.contract import ToolContext
from playhead.tools.toolbox import Toolbox, default_toolbox


def call(ctx: ToolContext, name: str, arguments: Any, toolbox: Toolbox | None = None) -> Observation:
    raw = arguments if isinstance(arguments, str) else json.dumps(arguments)
    made = ToolCall(id="c1", name=name, arguments_json=raw)
    return asyncio.run((toolbox or default_toolbox()).call(made, ctx))


def span(ctx: ToolContext, start_s: float, end_s: float) -> Clip:
    return Clip(video_id=ctx.video.id, start_s=start_s, end_s=end_s)


def test_search_shows_moments_in_order_of_time(ctx: ToolContext):
    seen = call(ctx, "search_clips", {"query": "red star", "k": 2})
    assert seen.error is None and seen.tool_call_id == "c1" and seen.wall_s > 0
    first, second = seen.frames
    assert 20 <= first.timestamp_s < 24 and 74 <= second.timestamp_s < 77
    assert seen.content[0] == "2 moments for red star, in order of time:\n14.0-26.0 "
    assert seen.content[2] in ("\n68.0-80.0 ", "\n70.0-82.0 ") and seen.content[-1] == "\n"
    # Looked at: the shown seconds, not the windows.
    assert seen.clips == tuple(span(ctx, f.timestamp_s, f.timestamp_s + 1) for f in seen.frames)
    assert ctx.store.pixels(first).shape == (48, 64, 3)


def test_several_searches_in_one(ctx: ToolContext):
    seen = call(ctx, "search_clips", {"query": " red ; blue;red;; ", "k": 1})
    assert seen.text.startswith("2 moments for red ; blue;red;;, in order of time:\n")
    assert len(seen.frames) == 2


def test_no_search_floods_the_context(ctx: ToolContext, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("playhead.tools.search_clips.MAX_MOMENTS", 5)
    seen = call(ctx, "search_clips", {"query": "red;blue;grey;green", "k": 5})
    assert len(seen.frames) == 5 and [f.timestamp_s for f in seen.frames] == sorted(f.timestamp_s for f in seen.frames)


def test_zoom_shows_every_second(ctx: ToolContext):
    seen = call(ctx, "temporal_zoom", {"start_s": 18, "end_s": 24.0})
    assert [f.timestamp_s for f in seen.frames] == [18, 19, 20, 21, 22, 23]
    assert seen.content[0] == "6 frames from 18.0 to 24.0. Before: 0.0-18.0. After: 24.0-56.0.\n"
    assert seen.clips == (span(ctx, 18, 24),)


def test_zoom_shows_no_more_frames_than_fit(ctx: ToolContext):
    seen = call(ctx, "temporal_zoom", {"start_s": 20, "end_s": 52})
    assert [f.timestamp_s for f in seen.frames] == [20 + 2 * i for i in range(16)]
    assert "Only 16 frames fit, so there is one every 2.0 s.\n" in seen.text
    assert seen.clips == (span(ctx, 20, 52),)
    sparse = call(ctx, "temporal_zoom", {"start_s": 0, "end_s": 100})
    assert len(sparse.frames) == 15 and sparse.clips[1] == span(ctx, 7, 8)


def test_zoom_finer_than_the_film_shows_each_frame_once(ctx: ToolContext):
    seen = call(ctx, "temporal_zoom", {"start_s": 20, "end_s": 21, "fps": 16})
    assert [f.timestamp_s for f in seen.frames] == [20, 20.25, 20.5, 20.75]


def test_the_end_may_be_rounded_up(ctx: ToolContext):
    seen = call(ctx, "temporal_zoom", {"start_s": 98, "end_s": 101.4})
    assert seen.error is None and seen.content[0] == "3 frames from 98.0 to 101.0. Before: 66.0-98.0. After: none.\n"


def test_captions_are_remembered_and_found(ctx: ToolContext):
    seen = call(ctx, "caption_frames", {"times_s": [61.0, 5.0]})
    assert seen.content == ("61.0: a blue wall\n5.0: a grey wall\n",)
    assert seen.clips == (span(ctx, 61, 62), span(ctx, 5, 6))
    assert ctx.texts.search(ctx.video.id, "walls", 5)
    # No picture is like a "wall" to this encoder: only the captions can lead there.
    found = call(ctx, "search_clips", {"query": "wall", "k": 2})
    assert [f.timestamp_s for f in found.frames] == [5.0, 61.0]


def test_without_a_captioner_it_says_what_else_to_do(ctx: ToolContext):
    seen = call(dataclasses.replace(ctx, captioner=None), "caption_frames", {"times_s": [1]})
    assert seen.error and "temporal_zoom" in seen.error


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("find", {}, "The tools are: search_clips, temporal_zoom, caption_frames, search_subtitles, crop_frame,"),
        ("search_clips", "{query: red}", "not JSON"),
        ("search_clips", "[" * 100_000, "not JSON"),
        ("search_clips", '["red"]', "must be a JSON object. search_clips takes query (string), k (integer, optional)."),
        ("search_clips", {}, "query is missing"),
        ("search_clips", {"query": 3}, "query should be a valid string (got 3)"),
        ("search_clips", {"query": " "}, "query"),
        ("search_clips", {"query": ";"}, "nothing to look for"),
        ("search_clips", {"query": "red", "k": 0}, "k should be greater than or equal to 1 (got 0)"),
        ("search_clips", {"query": "red", "k": 2.5}, "k should be a valid integer"),
        ("search_clips", {"query": "red", "k": True}, "k true and false are not allowed here"),
        ("search_clips", {"query": "red", "page": 2}, "page is not an argument"),
        ("search_clips", '{"query": "\\ud800"}', "query should be a valid string"),
        ("temporal_zoom", {"start_s": 5000.0, "end_s": 5010}, "start_s 5000.0 is outside the video (0.0 to 101.0)."),
        ("temporal_zoom", {"start_s": -1, "end_s": 5}, "start_s -1.0 is outside the video (0.0 to 101.0)."),
        ("temporal_zoom", {"start_s": 90, "end_s": 110}, "end_s 110.0 is outside the video (0.0 to 101.0)."),
        ("temporal_zoom", {"start_s": 9, "end_s": 5}, "end_s 5.0 must be after start_s 9.0."),
        ("temporal_zoom", '{"start_s": NaN, "end_s": 5}', "start_s should be a finite number"),
        ("temporal_zoom", '{"start_s": 1, "end_s": 1e999}', "end_s should be a finite number"),
        ("temporal_zoom", {"start_s": 1, "end_s": 2, "fps": 0}, "fps should be greater"),
        ("temporal_zoom", {"start_s": [1], "end_s": 2}, "start_s should be a valid number"),
        ("caption_frames", {"times_s": []}, "times_s"),
        ("caption_frames", {"times_s": [1, "soon"]}, "times_s.1 should be a valid number"),
        ("caption_frames", {"times_s": [1, 500]}, "times_s 500.0 is outside the video"),
        ("caption_frames", {"times_s": 5}, "times_s should be a valid list"),
    ],
)
def test_faults_are_told_to_the_model(ctx: ToolContext, name: str, arguments: Any, says: str):
    seen = call(ctx, name, arguments)
    assert seen.error is not None and says in seen.error
    assert seen.content == (f"Error: {seen.error}\n",) and len(seen.error) < 600
    assert seen.clips == () and seen.frames == ()


def test_numbers_may_be_written_as_text(ctx: ToolContext):
    assert call(ctx, "temporal_zoom", {"start_s": "18.0", "end_s": "20"}).error is None
    assert call(ctx, "search_clips", {"query": "red", "k": "2"}).error is None


def test_frames_are_limited_by_the_budget(with_frames: Callable[[int], ToolContext]):
    for name, arguments in (
        ("search_clips", {"query": "red", "k": 5}),
        ("temporal_zoom", {"start_s": 0, "end_s": 12}),
        ("caption_frames", {"times_s": [1, 2, 3]}),
    ):
        assert "budget is spent" in (call(with_frames(0), name, arguments).error or "")
        assert len(call(with_frames(2), name, arguments).frames) <= 2
    best = call(with_frames(1), "search_clips", {"query": "blue", "k": 5})
    assert 60 <= best.frames[0].timestamp_s < 64
    halves = call(with_frames(2), "temporal_zoom", {"start_s": 0, "end_s": 12})
    assert [f.timestamp_s for f in halves.frames] == [0, 6] and "Only 2 frames fit" in halves.text


def test_a_file_that_went_away_is_not_the_models_fault(ctx: ToolContext, tmp_path: Any):
    import shutil

    from playhead.core.errors import VideoError
    from playhead.core.video import Video

    copy = tmp_path / "film.mp4"
    shutil.copy(ctx.video.path, copy)
    gone = dataclasses.replace(ctx, video=Video.open(copy))
    copy.unlink()
    with pytest.raises(VideoError):
        call(gone, "temporal_zoom", {"start_s": 0, "end_s": 5})


def test_a_choice_of_tools():
    assert [s.name for s in default_toolbox(["temporal_zoom"]).specs] == ["temporal_zoom"]
    with pytest.raises(ValueError, match="no tool is called 'zoom'"):
        default_toolbox(["zoom"])
    with pytest.raises(ValueError, match="different names"):
        default_toolbox(["temporal_zoom", "temporal_zoom"])

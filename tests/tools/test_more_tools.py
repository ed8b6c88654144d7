"""Subtitles, crops, overviews and notes, through the toolbox on a real film; and several calls at once."""

import asyncio
import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playhead.core.frames import FrameStore
from playhead.core.nouns import Clip, Observation, ToolCall
from playhead.core.video import Video
from playhead.memory.text import TextMemory
from playhead.tools.contract import ToolContext
from playhead.tools.toolbox import default_toolbox, tools_for

SRT = """1
00:00:21,000 --> 00:00:23,500
Where is the lantern?

2
00:00:62,000 --> 00:00:63,000
broken clock, and "quotes" AND (operators)

3
00:01:15,000 --> 00:01:16,500
The lanterns are lost.
"""
ALL = ("search_clips", "temporal_zoom", "caption_frames", "search_subtitles", "crop_frame", "browse", "recall", "note")


def call(ctx: ToolContext, name: str, **arguments: Any) -> Observation:
    made = ToolCall(id="c1", name=name, arguments_json=json.dumps(arguments))
    return asyncio.run(default_toolbox().call(made, ctx))


def span(ctx: ToolContext, start_s: float, end_s: float) -> Clip:
    return Clip(video_id=ctx.video.id, start_s=start_s, end_s=end_s)


@pytest.fixture
def spoken(ctx: ToolContext, tmp_path: Path) -> ToolContext:
    """The same film in a folder of its own, with a subtitle file beside it."""
    copy = tmp_path / "film.mp4"
    copy.write_bytes(ctx.video.path.read_bytes())
    (tmp_path / "film.srt").write_text(SRT)
    return dataclasses.replace(ctx, video=Video.open(copy))


@pytest.fixture
def halves(tmp_path: Path) -> ToolContext:
    """Four seconds of a wide picture: its left quarter is white, the rest is black. No index: nothing here searches."""
    import av

    path = tmp_path / "halves.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=4, options={"preset": "ultrafast", "crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 640, 320, "yuv420p"
        pixels = np.zeros((320, 640, 3), np.uint8)
        pixels[:, :160] = 255
        for _ in range(16):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        out.mux(stream.encode(None))
    nothing: Any = None
    return ToolContext(video=Video.open(path), store=FrameStore(), index=nothing, texts=TextMemory(), max_side=200)


# search_subtitles


def test_lines_by_words_and_by_time(spoken: ToolContext) -> None:
    seen = call(spoken, "search_subtitles", query="lantern")
    assert seen.content == (
        "2 lines for lantern, in order of time:\n21.0-23.5 Where is the lantern?\n75.0-76.5 The lanterns are lost.\n",
    )
    assert seen.clips == (span(spoken, 21, 23.5), span(spoken, 75, 76.5))
    one = call(spoken, "search_subtitles", query="lantern", start_s=70.0)
    assert one.text == "1 lines for lantern from 70.0 to 101.0, in order of time:\n75.0-76.5 The lanterns are lost.\n"
    every = call(spoken, "search_subtitles", query="", start_s=20, end_s=30)
    assert every.text == "1 lines from 20.0 to 30.0, in order of time:\n21.0-23.5 Where is the lantern?\n"
    first = call(spoken, "search_subtitles", query="", k=1)
    assert first.text.startswith("1 lines, in order of time. Only these are shown, there are more.\n21.0-23.5")
    assert call(spoken, "search_subtitles", query="anchor").content == ("0 lines for anchor.\n",)


@pytest.mark.parametrize("query", ['"quotes" AND (operators)', "lantern* NEAR(", "' OR 1=1 --", "-lantern:", "^"])
def test_no_query_is_syntax(spoken: ToolContext, query: str) -> None:
    assert call(spoken, "search_subtitles", query=query).error is None


def test_no_subtitles_is_said_with_what_to_do_instead(ctx: ToolContext) -> None:
    assert "no subtitles. Use search_clips" in (call(ctx, "search_subtitles", query="x").error or "")


# crop_frame


def test_a_crop_is_cut_at_full_resolution(halves: ToolContext) -> None:
    seen = call(halves, "crop_frame", time_s=1.0, box=[125, 0, 375, 500])
    (frame,) = seen.frames
    assert seen.content[0] == "Frame at 1.0, box 125,0,375,500.\n"
    assert (frame.box, frame.width, frame.height) == ((0.125, 0.0, 0.375, 0.5), 160, 160)
    pixels = halves.store.pixels(frame).astype(int)
    # The edge at a quarter of the picture is in the middle of the crop, as sharp as in the file.
    assert pixels[:, :76].min() > 220 and pixels[:, 84:].max() < 35
    assert seen.clips == (span(halves, 1.0, 2.0),)


def test_a_large_crop_is_no_larger_than_a_frame_may_be(halves: ToolContext) -> None:
    (frame,) = call(halves, "crop_frame", time_s=0, box=[0, 0, 1000, 1000]).frames
    assert (frame.width, frame.height) == (200, 100)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"time_s": 50, "box": [0, 0, 500, 500]}, "time_s 50.0 is outside the video (0.0 to 4.0)."),
        ({"time_s": 1, "box": [0, 0, 1500, 500]}, "box [0, 0, 1500, 500] is outside the frame. Write [left, top,"),
        ({"time_s": 1, "box": [-1, 0, 500, 500]}, "outside the frame"),
        ({"time_s": 1, "box": [500, 0, 400, 500]}, "is empty: right must be more than left"),
        ({"time_s": 1, "box": [0.1, 0.1, 0.5, 0.5]}, "too small, at least 20 by 20 are needed. Write [left, top,"),
        ({"time_s": 1, "box": [0, 0, 500]}, "box should have at least 4 items"),
        ({"time_s": 1, "box": [0, 0, 500, "wide"]}, "box.3 should be a valid number"),
        ({"time_s": 1, "box": "left"}, "box should be a valid list"),
    ],
)
def test_faulty_crops_are_told_to_the_model(halves: ToolContext, arguments: dict[str, Any], says: str) -> None:
    seen = call(halves, "crop_frame", **arguments)
    assert says in (seen.error or "").replace("List should", "should") and seen.frames == ()


# browse


def test_browse_shows_each_shot_once(ctx: ToolContext) -> None:
    seen = call(ctx, "browse", start_s=10, end_s=70)
    assert [p for p in seen.content if isinstance(p, str)] == [
        "5 shots from 10.0 to 70.0:\n10.0-20.0 ",
        " a grey wall\n20.0-24.0 ",
        " a red wall\n24.0-60.0 ",
        " a grey wall\n60.0-64.0 ",
        " a blue wall\n64.0-70.0 ",
        " a grey wall\n",
    ]
    assert [f.timestamp_s for f in seen.frames] == [15, 22, 42, 62, 67]
    # What was described once is remembered: nobody has to look again.
    again = call(dataclasses.replace(ctx, captioner=None), "browse", start_s=10, end_s=70)
    assert again.text == seen.text


def test_browse_is_bounded(ctx: ToolContext, monkeypatch: pytest.MonkeyPatch) -> None:
    few = dataclasses.replace(ctx, frames_left=lambda: 6)
    seen = call(few, "browse", start_s=0, end_s=101)
    assert len(seen.frames) == 3 and seen.content[0] == "3 shots from 0.0 to 101.0:\n0.0-24.0 "
    monkeypatch.setattr("playhead.tools.browse.SHOTS_WITHIN_S", 60.0)
    whole = call(dataclasses.replace(ctx, captioner=None), "browse", start_s=0, end_s=96)
    assert whole.content[0] == "12 parts from 0.0 to 96.0:\n0.0-8.0 " and len(whole.frames) == 12


# note and recall


def test_notes_are_recalled_and_a_notebook_keeps_them(ctx: ToolContext, tmp_path: Path) -> None:
    kept = dataclasses.replace(ctx, notebook=TextMemory(tmp_path / "notes.sqlite"))
    seen = call(kept, "note", text="the red wall", start_s=20, end_s=24)
    assert seen.content == ("Noted for 20.0-24.0.\n",) and seen.clips == ()
    call(kept, "caption_frames", times_s=[61.0])
    told = "2 notes for walls, in order of time:\n20.0-24.0 the red wall\n61.0-62.0 a blue wall\n"
    assert call(kept, "recall", query="walls").text == told
    later = dataclasses.replace(ctx, texts=TextMemory(), notebook=TextMemory(tmp_path / "notes.sqlite"))
    assert call(later, "recall", query="walls").text == told
    assert call(later, "recall", query="", k=1).text.startswith("1 notes, in order of time. Only these are shown")
    empty = dataclasses.replace(ctx, texts=TextMemory())
    assert call(empty, "recall", query="walls").content == ("0 notes for walls.\n",)
    assert call(later, "recall", query="walls").clips == ()


def test_a_full_notebook_says_so(ctx: ToolContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playhead.tools.notebook.MAX_NOTES", 1)
    call(ctx, "note", text="one", start_s=0, end_s=1)
    assert "the notebook is full (1 notes)" in (call(ctx, "note", text="two", start_s=1, end_s=2).error or "")


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("search_subtitles", {"query": "x", "k": 0}, "k should be greater than or equal to 1"),
        ("search_subtitles", {"query": "x", "start_s": 500}, "start_s 500.0 is outside the video"),
        ("search_subtitles", {"query": "x", "start_s": 9, "end_s": 5}, "end_s 5.0 must be after start_s 9.0."),
        ("browse", {"start_s": 90, "end_s": 500}, "end_s 500.0 is outside the video"),
        ("note", {"text": "", "start_s": 1, "end_s": 2}, "text should have at least 1 character"),
        ("note", {"text": "x", "start_s": 5, "end_s": 5}, "must be after start_s"),
        ("recall", {"query": 5}, "query should be a valid string"),
    ],
)
def test_faults_are_told_to_the_model(spoken: ToolContext, name: str, arguments: dict[str, Any], says: str) -> None:
    seen = call(spoken, name, **arguments)
    assert says in (seen.error or "").replace("String should", "should") and seen.frames == ()


# All together


def test_a_video_gets_the_tools_that_suit_it(ctx: ToolContext, spoken: ToolContext) -> None:
    assert tuple(s.name for s in default_toolbox().specs) == ALL
    assert tuple(s.name for s in tools_for(ctx.video).specs) == (*ALL[:3], "crop_frame", "browse")
    assert tuple(s.name for s in tools_for(spoken.video, notebook=True).specs) == ALL


def test_calls_of_one_turn_run_at_the_same_time(
    spoken: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two tools waits, in the middle of its work, for the other one: one after the other they would never end."""
    meeting = threading.Barrier(2)
    frames_at, subtitles = ToolContext.frames_at, ToolContext.subtitles

    def met(self: ToolContext, times_s: Any) -> Any:
        meeting.wait(timeout=30)
        return frames_at(self, times_s)

    def met_too(self: ToolContext) -> Any:
        meeting.wait(timeout=30)
        return subtitles.__get__(self)

    monkeypatch.setattr(ToolContext, "frames_at", met)
    monkeypatch.setattr(ToolContext, "subtitles", property(met_too))
    calls = [("temporal_zoom", {"start_s": 20, "end_s": 22}), ("search_subtitles", {"query": "lantern"})]

    async def both() -> list[Observation]:
        made = [ToolCall(id=name, name=name, arguments_json=json.dumps(a)) for name, a in calls]
        return list(await asyncio.gather(*(default_toolbox().call(c, spoken) for c in made)))

    zoom, lines = asyncio.run(both())
    assert (zoom.tool_call_id, lines.tool_call_id) == ("temporal_zoom", "search_subtitles")
    assert [f.timestamp_s for f in zoom.frames] == [20, 21] and lines.text.startswith("2 lines for lantern")

"""Observations to the byte: models are trained on these strings, so any change must be seen here first."""

from dataclasses import dataclass

from playhead.core.nouns import Clip, Frame
from playhead.tools.format import captions_content, hits_content, merge_text, time_text, zoom_content


@dataclass(frozen=True)
class Hit:
    clip: Clip


def clip(a: float, b: float) -> Clip:
    return Clip(video_id="v", start_s=a, end_s=b)


def frame(t: float) -> Frame:
    return Frame(video_id="v", timestamp_s=t, sha256=f"{t}", width=64, height=64)


def test_hits_stand_in_order_of_time_and_texts_are_merged():
    late, early = Hit(clip(750, 762)), Hit(clip(10, 22))
    content = hits_content("red star; blue ring", [late, early], [frame(757), frame(15.96)])
    assert content == (
        "2 moments for red star; blue ring, in order of time:\n10.0-22.0 ",
        frame(15.96),
        "\n750.0-762.0 ",
        frame(757),
        "\n",
    )


def test_no_hits():
    assert hits_content("red star", [], []) == ("0 moments for red star.\n",)


def test_zoom_in_the_middle():
    frames = [frame(750), frame(751)]
    assert zoom_content(clip(750, 752), 1200, frames, 1.0) == (
        "2 frames from 750.0 to 752.0. Before: 718.0-750.0. After: 752.0-784.0.\n",
        *frames,
    )


def test_zoom_at_the_edges():
    assert zoom_content(clip(0, 12), 20, [], 1.0) == ("0 frames from 0.0 to 12.0. Before: none. After: 12.0-20.0.\n",)
    assert zoom_content(clip(98, 120), 120.04, [], 1.0) == (
        "0 frames from 98.0 to 120.0. Before: 66.0-98.0. After: none.\n",
    )
    assert zoom_content(clip(98, 120), 140, [], 1.0)[0].endswith("After: 120.0-140.0.\n")


def test_zoom_says_when_frames_were_left_out():
    (line,) = zoom_content(clip(100, 132), 1200, [], 2.0, limit=16)
    assert line == (
        "0 frames from 100.0 to 132.0. Before: 68.0-100.0. After: 132.0-164.0. "
        "Only 16 frames fit, so there is one every 2.0 s.\n"
    )


def test_captions_are_one_line_each():
    assert captions_content([1.0, 2.25], ["a\nred star ", "a wall"]) == ("1.0: a red star\n2.2: a wall\n",)


def test_text_helpers():
    assert time_text(-0.0) == "0.0"
    assert merge_text(["a", "", "b", frame(1), "", "c"]) == ("ab", frame(1), "c")

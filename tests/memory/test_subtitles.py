"""Subtitles: what is said is found, whatever the file looks like that says it."""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.subtitles.subtitle import SubtitleSet
from hypothesis import given, settings
from hypothesis import strategies as st
from playhead.core.video import Video
from playhead.memory.subtitles import (
    Cue,
    Subtitles,
    decode_text,
    has_subtitles,
    join,
    parse_subtitles,
    sidecars,
    subtitles_of,
)
from playhead.world.film import _ASS_HEADER

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Where is</i> the {\\an8}lantern?

2
00:00:04,000 --> 00:00:05,000
Tom & Jerry: "2 < 3"
"""
VTT = """WEBVTT - made by hand

NOTE --> is no cue
at all

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.500 align:start position:0%
<v Ann><c.yellow>Where</c> is <00:00:01.500>the lantern?</v>

00:00:04.000 --> 00:00:05.000
Tom &amp; Jerry: "2 &lt; 3"
"""
CUES = [Cue(start_s=1.0, end_s=2.5, text="Where is the lantern?"), Cue(start_s=4.0, end_s=5.0, text='Tom & Jerry: "2 < 3"')]


def cue(start_s: float, end_s: float, text: str) -> Cue:
    return Cue(start_s=start_s, end_s=end_s, text=text)


@pytest.mark.parametrize("text", [SRT, VTT, SRT.replace("\n", "\r\n"), SRT.replace("\n", "\r"), SRT.replace(",", ".")])
def test_both_forms_are_read_without_their_markup(text: str) -> None:
    assert parse_subtitles(text) == (CUES, 0)


def test_broken_cues_are_skipped_and_counted() -> None:
    text = (
        "1\n00:00:01,000 -> 00:00:02,000\nno arrow\n\n"
        "2\n00:00:03,000 --> soon\nno end\n\n"
        "3\n00:00:09,000 --> 00:00:08,000\nbackwards\n\n"
        "4\n00:00:10,000 --> 00:00:11,000\n<i></i>\n\n"
        "5\n00:00:12,000 --> 00:00:13,000\nkept\n6\n00:00:14,000 --> 00:00:15,000\nno blank line before\n"
    )
    assert parse_subtitles(text) == ([cue(12, 13, "kept"), cue(14, 15, "no blank line before")], 3)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
def test_encodings_are_survived(encoding: str) -> None:
    text = SRT.replace("lantern", "café")
    (first, _), skipped = parse_subtitles(decode_text(text.encode(encoding)))
    assert first.text == "Where is the café?" and skipped == 0


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_bytes_break_it(data: bytes) -> None:
    parse_subtitles(decode_text(data))
    parse_subtitles(decode_text(b"1\n00:00:01,000 --> 00:00:02,000\n" + data))


def test_cues_that_overlap_are_one_line() -> None:
    assert join([cue(0, 2, "a"), cue(2.05, 4, "a")]) == [cue(0, 4, "a")]
    # Rolling captions: each cue repeats what is still on screen.
    assert join([cue(0, 2, "we"), cue(1, 3, "we went"), cue(2, 4, "we went home")]) == [cue(0, 4, "we went home")]
    assert join([cue(0, 2, "- Hello."), cue(0, 2, "- Hi.")]) == [cue(0, 2, "- Hello. - Hi.")]
    assert join([cue(0, 2, "a"), cue(1.8, 4, "b")]) == [cue(0, 2, "a"), cue(1.8, 4, "b")]


LINES = Subtitles(
    "v", (cue(1, 2, "Where is the lantern?"), cue(3, 4, "The lanterns are lost."), cue(5, 6, "灯笼在哪里"), cue(7, 8, "Lost."))
)


def test_words_find_lines_best_first() -> None:
    assert [c.start_s for c in LINES.search("lost lantern", 5)] == [3, 7, 1] or LINES.search("lost lantern", 5)[0].start_s == 3
    assert [c.start_s for c in LINES.search("lantern", 1)] in ([1], [3])
    assert LINES.search("lantern", 5, within=(2.5, 9.0)) == [LINES.cues[1]]
    assert LINES.search("灯笼", 5) == [LINES.cues[2]] and LINES.search("antern?", 5) == [LINES.cues[0]]
    assert LINES.between(3.5, 5.5, 5) == list(LINES.cues[1:3]) and LINES.search("  ", 5) == []


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_query_breaks_the_search(query: str) -> None:
    LINES.search(query, 3)
    LINES.search(f'"{query}" AND NEAR(* OR -', 3)


# Files beside the video.


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, film: Callable[..., Path]) -> Path:
    made = film([("grey", 6)])
    moved = tmp_path_factory.mktemp("sidecars") / "film.mp4"
    moved.write_bytes(made.read_bytes())
    return moved


def test_files_beside_the_video_count_by_name(path: Path) -> None:
    folder = path.parent
    assert not has_subtitles(Video.open(path))
    for name in ("film.srt", "film.en.vtt", "film.pt-BR.forced.SRT", "film.part2.srt", "films.srt", "film.txt", "other.srt"):
        (folder / name).write_text(SRT)
    (folder / "film.part2.mp4").write_bytes(b"another film")
    os.mkfifo(folder / "film.de.srt")  # reading it would wait for ever
    assert [f.name for f in sidecars(path)] == ["film.en.vtt", "film.pt-BR.forced.SRT", "film.srt"]
    found = subtitles_of(Video.open(path))
    assert list(found.cues) == CUES  # said in three files, kept once
    for file in sidecars(path):
        file.unlink()
    (folder / "film.srt").write_text(SRT.replace("lantern", "anchor"))
    assert subtitles_of(Video.open(path)).search("anchor", 1)[0].start_s == 1.0
    assert list(subtitles_of(Video.open(path)).search("lantern", 1)) == []


# Streams inside the file.


def with_stream(path: Path, codec: str, container: str, cues: list[Cue]) -> Path:
    """Six seconds of grey with a subtitle stream."""
    with av.open(str(path), "w", format=container) as out:
        video = out.add_stream("libx264" if container != "webm" else "libvpx-vp9", rate=4)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        stream = out.add_stream(codec)
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.subtitle_header = _ASS_HEADER
        for c in cues:
            start, ms = round(c.start_s * 1000), round((c.end_s - c.start_s) * 1000)
            said = SubtitleSet.create(text=f"0,0,Default,,0,0,0,,{c.text}".encode(), start=0, end=ms, pts=start)
            packet = stream.codec_context.encode_subtitle(said)
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = start
            packet.duration = ms
            out.mux(packet)
        for _ in range(24):
            out.mux(video.encode(av.VideoFrame(64, 48, "yuv420p")))
        out.mux(video.encode(None))
    return path


@pytest.mark.parametrize(
    ("codec", "container"), [("mov_text", "mp4"), ("subrip", "matroska"), ("ass", "matroska"), ("webvtt", "webm")]
)
def test_streams_inside_the_file_are_read(tmp_path: Path, codec: str, container: str) -> None:
    cues = [cue(1, 2.5, "Where is the lantern?"), cue(4, 5, "{\\i1}Look, it is\\N over there.{\\i0}")]
    found = subtitles_of(Video.open(with_stream(tmp_path / "film", codec, container, cues)))
    assert list(found.cues) == [cues[0], cue(4, 5, "Look, it is over there.")] and found.skipped == 0
    assert has_subtitles(Video.open(tmp_path / "film"))


def test_a_real_file_with_subtitles() -> None:
    root = Path(os.environ.get("PLAYHEAD_REAL") or Path(__file__).resolve().parents[3] / "shared" / "real")
    path = root / "video" / "torchcodec__nasa_13013.mp4"
    if not path.is_file():
        pytest.skip("no real files here (set PLAYHEAD_REAL)")
    found = subtitles_of(Video.open(path))
    assert [c.text.split()[0] for c in found.cues] == ["NAR:", "space", "at", "This"]  # two equal streams, kept once
    assert found.search("space telescope", 1)[0].start_s == pytest.approx(4.26)
    assert "Maryland" in found.search("NASA's Goddard", 1)[0].text

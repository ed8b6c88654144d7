"""Files that are no videos, and videos that are broken: one line, or the readable part and a warning; no crash, no hang."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from playhead.core.decoders import pyav as pyav_decoder
from playhead.core.errors import VideoError, VideoWarning
from playhead.core.video import Video

from .conftest import Made, read_card, write


def refusal(path: Path | str, **how: object) -> str:
    with pytest.raises(VideoError) as caught:
        Video.open(path, **how)  # type: ignore[arg-type]
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500
    return line


def test_missing(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.mp4").endswith("none.mp4: no such file")


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert "empty.mp4: is empty (0 bytes); nothing was readable" in refusal(tmp_path / "empty.mp4")


def test_directory(tmp_path: Path) -> None:
    assert "is a directory" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"just words\n" * 200, b"\0" * 5000, bytes(range(256)) * 40, b"ffconcat version 1.0\nfile /etc/passwd\n"],
)
def test_no_video_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "words.mp4"
    path.write_bytes(content)
    assert "words.mp4" in refusal(path) and "nothing was readable" in refusal(path)


def test_a_playlist_opens_no_address(tmp_path: Path) -> None:
    path = tmp_path / "list.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    start = time.monotonic()
    refusal(path)
    assert time.monotonic() - start < 5


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "not a regular file" in refusal(tmp_path / "pipe.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "locked.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    assert "permission" in refusal(path)


def test_bad_names() -> None:
    refusal("a\0b.mp4")
    refusal("x" * 5000)


def test_unknown_decoder(made: Callable[[str], Made]) -> None:
    assert "pyav, decord" in refusal(made("cfr.mp4").path, decoder="magic")


def _sound(path: Path, cover: bool = False) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac" if path.suffix == ".m4a" else "flac", rate=8000)
        samples = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000), np.int16 if path.suffix == ".flac" else np.float32),
            "s16" if path.suffix == ".flac" else "fltp",
            "mono",
        )
        samples.sample_rate = 8000
        out.mux(stream.encode(samples))
        out.mux(stream.encode(None))


def test_audio_only(tmp_path: Path) -> None:
    _sound(tmp_path / "song.m4a")
    assert "has no video stream (it holds audio)" in refusal(tmp_path / "song.m4a")


def test_no_frames_is_zero_duration(tmp_path: Path) -> None:
    path = tmp_path / "nothing.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        out.mux(stream.encode(None))
    assert "nothing.mp4" in refusal(path)


def test_cut_before_the_header(made: Callable[[str], Made], tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    content = made("cfr.mp4").path.read_bytes()  # its header (moov) stands at the end
    path.write_bytes(content[: len(content) // 2])
    assert "cut.mp4: is an MP4 or MOV file without a readable header" in refusal(path)


def _front_header(path: Path, ticks: list[int]) -> bytes:
    write(path, ticks, container={"movflags": "faststart"})
    return path.read_bytes()


TICKS = [40 * i for i in range(120)]


@pytest.mark.parametrize("name", ["front.mp4", "cut.mkv", "cut.ts"])
@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_truncated_gives_what_is_there(
    name: str, long: bool, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if long:  # too long to be decoded when it is opened
        monkeypatch.setattr("playhead.core.probe.VERIFY_PIXELS", 0)
    if large:  # sound ones are decoded in threads
        monkeypatch.setattr(pyav_decoder, "_ALONE_PIXELS", 0)
    path = tmp_path / name
    how = {"container": {"movflags": "faststart"}} if name.endswith("mp4") else {}
    write(path, TICKS, **how)  # type: ignore[arg-type]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    video = Video.open(path)
    if name == "cut.ts":  # a transport stream does not say how long it was meant to be
        assert 1.5 < video.readable_s < 4.0
    else:
        assert video.duration_s == pytest.approx(4.8, abs=0.1) and 1.0 < video.readable_s < 4.0
        assert len(video.warnings) >= 1
        assert f"only the first {video.readable_s:.2f} s of 4.80 s can be read" in video.warnings[-1]
    assert video.clip.end_s == video.readable_s
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoWarning)
        frames = list(video.read(0.0, 1e6, None))
        last, inside = video.frames_at([4.7, 1.0])
    numbers = [read_card(f.pixels) for f in frames]
    # Of the last group frames may be there whose predecessors in time stood after them in the file.
    assert numbers == sorted(set(numbers)) and numbers[:-3] == list(range(len(frames) - 3))
    assert frames[-1].timestamp_s == pytest.approx(video.readable_s - 0.04, abs=0.01), "all of what was said to be there"
    assert read_card(last.pixels) == numbers[-1] and last.timestamp_s == frames[-1].timestamp_s
    assert read_card(inside.pixels) == 25


@pytest.mark.parametrize("long", [False, True])
def test_damage_in_the_middle(
    long: bool, made: Callable[[str], Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if long:
        monkeypatch.setattr("playhead.core.probe.VERIFY_PIXELS", 0)
    path = tmp_path / "hole.mp4"
    content = bytearray(_front_header(path, TICKS))
    start = content.index(b"mdat")
    size = len(content) - start
    content[start + size * 4 // 10 : start + size * 6 // 10] = bytes(size * 6 // 10 - size * 4 // 10)
    path.write_bytes(content)
    video = Video.open(path)
    assert video.duration_s == pytest.approx(4.8, abs=0.05) and video.readable_s == video.duration_s
    if long:
        assert not video.warnings
        with pytest.warns(VideoWarning, match=r"hole\.mp4: \d+ packets are damaged near"):
            frames = list(video.read(0.0, 5.0, None))
    else:
        assert "packets cannot be decoded, the first near" in video.warnings[0]
        frames = list(video.read(0.0, 5.0, None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoWarning)
        before, after = video.frames_at([0.5, 4.7])
    assert (read_card(before.pixels), read_card(after.pixels)) == (12, 117)
    times = [f.timestamp_s for f in frames]
    assert times == sorted(set(times)) and 40 < len(times) < 120


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bytes_never_crash(seed: int, made: Callable[[str], Made], tmp_path: Path) -> None:
    name = ("cfr.mp4", "vfr.mp4", "hevc.mp4", "clock.ts", "vp9.webm", "late_picture.mp4")[seed % 6]
    rng = np.random.default_rng(seed)
    content = np.frombuffer(made(name).path.read_bytes(), np.uint8).copy()
    spots = rng.integers(0, len(content), 60)
    content[spots] = rng.integers(0, 256, 60)
    path = tmp_path / name
    path.write_bytes(content.tobytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoWarning)
        try:
            video = Video.open(path, stall_s=5.0)
            frames = video.frames_at([0.0, video.readable_s / 2, video.readable_s])
        except VideoError as error:
            assert "\n" not in str(error)
            return
    assert len(frames) == 3 and video.readable_s <= video.duration_s


def test_decoding_that_stalls_is_given_up(made: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch) -> None:
    video = Video.open(made("cfr.mp4").path)
    video = replace(video, track=replace(video.track, stall_s=0.05))

    def slow(self: object, packet: object) -> list[object]:
        time.sleep(0.02)
        return []

    monkeypatch.setattr(pyav_decoder.Reader, "_decode_packet", slow)
    start = time.monotonic()
    with pytest.raises(VideoError, match="gave no frame for"):
        video.frames_at([1.0])
    assert time.monotonic() - start < 2


def test_a_file_that_is_gone_or_changed(made: Callable[[str], Made], tmp_path: Path) -> None:
    path = tmp_path / "gone.mp4"
    path.write_bytes(made("cfr.mp4").path.read_bytes())
    video = Video.open(path)
    path.unlink()
    with pytest.raises(VideoError, match="cannot be read any more"):
        video.frames_at([0.0])


def test_timestamps_that_contradict_the_pictures(tmp_path: Path) -> None:
    write(tmp_path / "b.avi", TICKS)  # H.264 with B-frames: AVI has no place for their times
    assert "timestamps contradict the order" in refusal(tmp_path / "b.avi")


def test_enormous_pictures_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[str], Made]
) -> None:
    monkeypatch.setattr("playhead.core.probe.MAX_PIXELS", 1000)
    assert "larger than the limit" in refusal(made("cfr.mp4").path)


def test_the_real_damaged_and_silent_ones(real: Path) -> None:
    video = Video.open(real / "video" / "decord__corrupted.mp4")
    # Frame threads notice the fault a picture or two before or after it.
    assert re.search(r"1 packets cannot be decoded, the first near (2\.[89]|3\.\d) s", video.warnings[0])
    assert len(list(video.read(0.0, 5.0, None, size=(64, 36)))) == 49
    assert "no video stream" in refusal(real / "video" / "torchcodec__nasa_13013.mp4.audio.mp3")

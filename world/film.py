"""Filming a scene: an ordinary H.264 MP4 file, as a camera or an editor would leave it.

The stream has B-frames, a key frame about every 5 seconds and its index at the front, so seeking in it is as hard as in
any downloaded video. Frame i shows the scene at i / fps. What is said in a scene is a subtitle stream of the file (mov_text, as
MP4 has it); `write_srt` writes the same as a file to lie beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ..core.whole import write_whole
from .render import render
from .scene import Line, Scene

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.subtitles.stream import SubtitleStream

TAG = "playhead-world"
"""What stands in the comment of every film, so that a made-up film can be told from footage."""
CRF = 26
KEY_INTERVAL_S = 5


def film_times(scene: Scene) -> list[float]:
    """Presentation times of a film's frames, in seconds."""
    return [i / scene.fps for i in range(max(1, round(scene.duration_s * scene.fps)))]


def write_film(scene: Scene, path: str | Path, progress: Callable[[float], None] | None = None) -> Path:
    """Film `scene` into the MP4 file `path`; `progress` is called with the share done, 0 to 1.

    The file is written beside and renamed, so `path` never holds half a film.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    times = film_times(scene)

    def frames() -> Iterable[np.ndarray]:
        for i, t_s in enumerate(times):
            if progress is not None and i % 80 == 0:
                progress(i / len(times))
            yield render(scene, t_s)

    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        encode(frames(), beside, fps=scene.fps, faststart=True, lines=scene.lines)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    if progress is not None:
        progress(1.0)
    return path


def write_srt(lines: Sequence[Line], path: Path) -> Path:
    """What is said as a SubRip file, written beside and renamed."""
    cues = [f"{i}\n{_clock(c.start_s)} --> {_clock(c.end_s)}\n{c.text}\n\n" for i, c in enumerate(lines, 1)]
    write_whole(path, "".join(cues))
    return path


def _clock(t_s: float) -> str:
    ms = round(t_s * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d},{ms % 1000:03d}"


def encode(
    frames: Iterable[np.ndarray],
    sink: Path | BinaryIO,
    *,
    fps: int,
    faststart: bool = False,
    lines: Sequence[Line] = (),
) -> None:
    """Write (S, S, 3) uint8 frames as an H.264 MP4 into a file or a seekable binary stream.

    `faststart` moves the index to the front, which only works for a file. `lines` become a subtitle stream.
    """
    import av
    from av.video.frame import VideoFrame

    target = str(sink) if isinstance(sink, Path) else sink
    options = {"movflags": "+faststart"} if faststart else {}
    with av.open(target, "w", format="mp4", options=options) as container:
        container.metadata["comment"] = TAG
        stream = None
        for pixels in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=fps)
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.thread_count = 1
                stream.options = {"preset": "veryfast", "crf": str(CRF), "g": str(KEY_INTERVAL_S * fps), "bf": "2"}
                if lines:
                    _mux_lines(container, lines)
            container.mux(stream.encode(VideoFrame.from_ndarray(pixels, format="rgb24")))
        if stream is None:
            raise ValueError("a film needs at least one frame")
        container.mux(stream.encode(None))


_ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
"""FFmpeg's text encoders take their subtitles as ASS, and will not begin without its header."""


def _mux_lines(container: OutputContainer, lines: Sequence[Line]) -> None:
    from av.subtitles.subtitle import SubtitleSet

    stream: SubtitleStream = container.add_stream("mov_text")
    stream.time_base = Fraction(1, 1000)
    stream.metadata["language"] = "eng"
    encoder = stream.codec_context
    encoder.subtitle_header = _ASS_HEADER
    encoder.time_base = Fraction(1, 1000)
    for line in lines:
        start_ms, ms = round(line.start_s * 1000), round((line.end_s - line.start_s) * 1000)
        event = f"0,0,Default,,0,0,0,,{line.text}".encode()
        packet = encoder.encode_subtitle(SubtitleSet.create(text=event, start=0, end=ms, pts=start_ms))
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = start_ms
        packet.duration = ms
        # The muxer holds a packet back until the picture is there too.
        container.mux(packet)

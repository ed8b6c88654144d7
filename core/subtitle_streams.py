"""Subtitle streams inside a video file, as timed texts.

Whatever FFmpeg can decode as text: mov_text, SubRip, ASS and SSA, WebVTT. Pictures of text (DVD, Blu-ray) are passed over.
Times are on the clock of the video (`decoders.contract`): seconds from the start of its presentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import av.error
from av.container import InputContainer
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

from .decoders.pyav import open_container
from .errors import VideoError
from .video import Video

UNTIMED_S = 3.0
"""How long a text stays that does not say when it ends."""
_ASS_FIELDS = 8
"""An event as FFmpeg gives it: "ReadOrder,Layer,Style,Name,MarginL,MarginR,MarginV,Effect,Text"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamText:
    """One text of a subtitle stream, as it stands in the file: markup and all."""

    stream: int
    start_s: float
    end_s: float
    text: str


def subtitle_texts(video: Video) -> Iterator[StreamText | None]:
    """The texts of all subtitle streams, stream by stream; None stands for one that cannot be read.

    Raises:
        VideoError: the file cannot be opened any more.
    """
    kinds = [s.index for s in video.streams if s.kind == "subtitle"]
    if not kinds:
        return
    try:
        with open_container(str(video.path), video.track.stall_s) as container:
            for index in kinds:
                stream = container.streams[index]
                if isinstance(stream, SubtitleStream) and stream.codec_context is not None:
                    yield from _texts(container, stream, float(video.track.zero))
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise VideoError(f"{video.path}: its subtitles cannot be read ({error})") from None


def _texts(container: InputContainer, stream: SubtitleStream, zero_s: float) -> Iterator[StreamText | None]:
    container.seek(0)
    for packet in container.demux(stream):
        if packet.pts is None or packet.time_base is None or not packet.size:
            continue
        start_s = float(packet.pts * packet.time_base) - zero_s
        seconds = float((packet.duration or 0) * packet.time_base)
        try:
            shown = packet.decode()
        except (av.error.FFmpegError, UnicodeDecodeError):
            yield None
            continue
        for rect in shown:
            if isinstance(rect, AssSubtitle):
                text = _dialogue(bytes(rect.ass))
                yield StreamText(stream=stream.index, start_s=start_s, end_s=start_s + (seconds or UNTIMED_S), text=text)


def _dialogue(event: bytes) -> str:
    """The text of an ASS event; its line breaks as newlines."""
    text = event.decode("utf-8", errors="replace").split(",", _ASS_FIELDS)[-1]
    return text.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")

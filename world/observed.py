"""What a tool's answer shows, read from its message: the hits of a search, a zoom, what is said, a crop.

Texts are read as a model reads them; nothing is known here of the tools themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..core.nouns import Frame, Message

_HIT = re.compile(r"(\d+\.\d)-(\d+\.\d) $")
_ZOOM = re.compile(r"frames from (\d+\.\d) to (\d+\.\d)\. Before: \S+ After: (?:(\d+\.\d)-(\d+\.\d)|none)\.")
_SAID = re.compile(r"^\d+ lines\b")
_LINE = re.compile(r"^(\d+\.\d)-(\d+\.\d) (.*)$", re.M)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    start_s: float
    end_s: float
    frame: Frame


@dataclass(frozen=True, kw_only=True, slots=True)
class Zoom:
    start_s: float
    end_s: float
    after: tuple[float, float] | None
    frames: tuple[Frame, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """Lines of the subtitles: (start, end, text)."""

    lines: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Crop:
    frame: Frame


Seen = list[Hit] | Zoom | Said | Crop


def read(message: Message) -> Seen:
    """What a tool message shows. Other observations (an error, captions) read as a search without hits."""
    text = message.text
    zoom = _ZOOM.search(text)
    if zoom:
        after = (float(zoom[3]), float(zoom[4])) if zoom[3] else None
        return Zoom(start_s=float(zoom[1]), end_s=float(zoom[2]), after=after, frames=message.frames)
    if len(message.frames) == 1 and message.frames[0].box is not None:
        return Crop(frame=message.frames[0])
    if _SAID.match(text):
        return Said(lines=tuple((float(a), float(b), said) for a, b, said in _LINE.findall(text)))
    hits = []
    for part, frame in zip(message.content, message.content[1:], strict=False):
        match = _HIT.search(part) if isinstance(part, str) else None
        if match and isinstance(frame, Frame):
            hits.append(Hit(start_s=float(match[1]), end_s=float(match[2]), frame=frame))
    return hits

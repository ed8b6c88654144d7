"""Format: what an observation says, to the byte. Pure functions of clips and frames.

Models are trained on these strings, so every change here is a change of the language they speak: the oracle, the
trainer and the real tools all build observations through this module. Times are seconds with one decimal ("750.0"), an
interval is "750.0-762.0": what a model needs to copy into its next call stands in the text as it must be written.

    hits_content   "3 moments for red star, in order of time:\\n" "750.0-762.0 " Frame "\\n" ...
    zoom_content   "12 frames from 750.0 to 762.0. Before: 718.0-750.0. After: 762.0-794.0.\\n" Frame Frame ...
    captions_content   "750.0: a red star on a grey wall\\n" ...
    lines_content      "1 lines for lantern, in order of time:\\n752.0-754.5 Where is the lantern?\\n" ...
    crop_content       "Frame at 753.0, box 170,370,420,620.\\n" Frame
    browse_content     "2 shots from 0.0 to 60.0:\\n0.0-12.5 " Frame " a red star\\n12.5-60.0 " Frame "\\n"
    error_content   "Error: start_s 5000.0 is outside the video (0.0 to 1200.0).\\n"
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..core.nouns import Clip, Frame, Part

NEIGHBOUR_S = 32.0
"""How far the "Before" and "After" of a zoom reach."""


LINE_CHARS = 240
"""A remembered line is cut here: a model's context is no place for a monologue."""


class TimedText(Protocol):
    """A text about a clip. (A `memory.text.TextHit` is one; so is anything a dream makes up.)"""

    @property
    def clip(self) -> Clip: ...
    @property
    def text(self) -> str: ...


class TimedHit(Protocol):
    """What is written of a hit: its clip. (A `memory.index.Hit` is one; so is anything an oracle makes up.)"""

    @property
    def clip(self) -> Clip: ...


def time_text(t_s: float) -> str:
    """Seconds with one decimal, never "-0.0"."""
    return f"{t_s + 0.0:.1f}"


def clip_text(start_s: float, end_s: float) -> str:
    """An interval as "750.0-762.0"."""
    return f"{time_text(start_s)}-{time_text(end_s)}"


def merge_text(parts: Iterable[Part]) -> tuple[Part, ...]:
    """The same parts with neighbouring texts joined and empty ones dropped."""
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, str) and isinstance(last, str):
            merged[-1] = last + part
        elif part != "":
            merged.append(part)
    return tuple(merged)


def hits_content(query: str, hits: Sequence[TimedHit], frames: Sequence[Frame]) -> tuple[Part, ...]:
    """The moments found for `query`, each with the frame that speaks for it; written in order of time.

    Args:
        query: as the model wrote it (several, separated by ";", are one search).
        hits: N hits, in any order.
        frames: N frames, `frames[i]` shows `hits[i]`.
    """
    assert len(hits) == len(frames), f"{len(hits)} hits, {len(frames)} frames"
    if not hits:
        return (f"0 moments for {query}.\n",)
    parts: list[Part] = [f"{len(hits)} moments for {query}, in order of time:\n"]
    # Two windows may start together: then the time of the frame decides, so that the order is always that of time.
    for i in sorted(range(len(hits)), key=lambda i: (hits[i].clip.start_s, frames[i].timestamp_s)):
        clip = hits[i].clip
        parts += [clip_text(clip.start_s, clip.end_s) + " ", frames[i], "\n"]
    return merge_text(parts)


def zoom_content(
    clip: Clip, duration_s: float, frames: Sequence[Frame], step_s: float, *, limit: int | None = None
) -> tuple[Part, ...]:
    """The frames of a zoomed clip, in order of time, after a line that names the stretches before and after it.

    Args:
        clip: what was zoomed into.
        duration_s: length of the video in seconds.
        frames: the frames shown, in order.
        step_s: seconds between frames.
        limit: set when the asked frames were more than may be shown: how many may; the first line then says so.
    """
    line = f"{len(frames)} frames from {time_text(clip.start_s)} to {time_text(clip.end_s)}."
    line += f" Before: {_span(max(0.0, clip.start_s - NEIGHBOUR_S), clip.start_s)}."
    line += f" After: {_span(clip.end_s, min(duration_s, clip.end_s + NEIGHBOUR_S))}."
    if limit is not None:
        line += f" Only {limit} frames fit, so there is one every {time_text(step_s)} s."
    return merge_text((line + "\n", *frames))


def captions_content(times_s: Sequence[float], captions: Sequence[str]) -> tuple[Part, ...]:
    """One line a frame: its time and what was said of it."""
    assert len(times_s) == len(captions), f"{len(times_s)} times, {len(captions)} captions"
    lines = (f"{time_text(t)}: {' '.join(caption.split())}\n" for t, caption in zip(times_s, captions, strict=True))
    return merge_text(lines)


def lines_content(
    what: str, lines: Sequence[TimedText], *, query: str = "", within: tuple[float, float] | None = None, more: bool = False
) -> tuple[Part, ...]:
    """Remembered or spoken texts in order of time, each behind its interval.

    Args:
        what: what they are, in the plural ("lines", "notes").
        lines: in any order.
        query: what was searched for; empty for all.
        within: the stretch that was asked about; None for the whole video.
        more: there are more than are shown.
    """
    head = f"{len(lines)} {what}" + (f" for {query}" if query else "")
    if within is not None:
        head += f" from {time_text(within[0])} to {time_text(within[1])}"
    if not lines:
        return (head + ".\n",)
    told = sorted(lines, key=lambda line: (line.clip.start_s, line.clip.end_s))
    said = "".join(f"{clip_text(t.clip.start_s, t.clip.end_s)} {_one_line(t.text)}\n" for t in told)
    rest = " Only these are shown, there are more." if more else ""
    return (f"{head}, in order of time{'.' if more else ':'}{rest}\n{said}",)


def crop_content(frame: Frame) -> tuple[Part, ...]:
    """A part of a frame, behind its time and its box in thousandths (left, top, right, bottom)."""
    sides = ",".join(str(round(1000 * side)) for side in frame.box or (0, 0, 1, 1))
    return (f"Frame at {time_text(frame.timestamp_s)}, box {sides}.\n", frame)


def browse_content(
    clip: Clip, what: str, parts: Sequence[Clip], frames: Sequence[Frame], captions: Sequence[str | None]
) -> tuple[Part, ...]:
    """The shots (or equal parts) of a stretch in order, each with the frame in its middle and what is said of it.

    Args:
        clip: the stretch.
        what: what the parts are ("shots", "parts").
        parts, frames, captions: N of each; a caption is None where there is none.
    """
    assert len(parts) == len(frames) == len(captions), f"{len(parts)}, {len(frames)}, {len(captions)}"
    content: list[Part] = [f"{len(parts)} {what} from {time_text(clip.start_s)} to {time_text(clip.end_s)}:\n"]
    for part, frame, caption in zip(parts, frames, captions, strict=True):
        said = f" {_one_line(caption)}\n" if caption else "\n"
        content += [clip_text(part.start_s, part.end_s) + " ", frame, said]
    return merge_text(content)


def error_content(message: str) -> tuple[Part, ...]:
    """What a model reads when its call could not be done: what was wrong, what is allowed."""
    return (f"Error: {message}\n",)


def _one_line(text: str) -> str:
    said = " ".join(text.split())
    return said if len(said) <= LINE_CHARS else said[: LINE_CHARS - 3].rstrip() + "..."


def _span(start_s: float, end_s: float) -> str:
    # Empty as the model would read it: 0.04 s of a neighbour would be written as "0.0-0.0".
    empty = end_s <= start_s or time_text(start_s) == time_text(end_s)
    return "none" if empty else clip_text(start_s, end_s)

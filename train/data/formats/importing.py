"""Importing: conversations of other tools as a set of ours.

    playhead data import FILE --format longvt|llama-factory [--tokenizer CHECKPOINT] --out DIR

Assistant's lines become turns, results the observations of the turn before, `<answer>` and `<evidence>` the answer. Their
tokens are unknown, so trajectories say exact=False; with a renderer they are written in its tokens (`rerender`), exact for SFT.

Images go into DIR/frames. An image's time is, in this order: what an export of ours noted; the `<12.0 seconds>` before it; an
even place in the stretch (start_time and end_time, or start_s and end_s) of the call that it answers; else 0. A whole video
becomes uniform frames with their true times.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ....agent.renderers.parsing import parse as parse_said
from ....agent.renderers.preamble import tool_preamble
from ....core.budget import Usage
from ....core.codec import from_plain
from ....core.decoders.contract import DecodedFrame
from ....core.errors import DataError, VideoError
from ....core.frames import FrameStore, pixels_sha256
from ....core.nouns import Answer, Completion, Frame, Message, Observation, Part, StopReason, Task, ToolCall, ToolSpec
from ....core.sampling import uniform_times
from ....core.scoring import match_choice, parse_spans
from ....core.trajectory import OnBad, Trajectory, Turn
from ....core.video import Video
from ..logbook import SET_FILE
from ..rerender import rerender
from ..sets import write_set
from .chat import function
from .files import read_rows
from .foreign import Film, Foreign, ForeignLine, Picture, tool_spec

if TYPE_CHECKING:
    from ....agent.renderers.chat import ChatRenderer

_STAMP = re.compile(r"<(\d+(?:\.\d+)?) seconds>$")
_RESPONSE = "<tool_response>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where media are, and how a whole video is looked at."""

    folder: Path
    frames: int = 8
    max_side: int = 448


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    path: Path
    count: int


def import_set(
    path: Path,
    parse: Callable[[str, dict[str, Any]], Foreign],
    out: Path,
    place: Place,
    renderer: ChatRenderer | None,
    on_bad: OnBad | None = None,
) -> Imported:
    """Write OUT/trajectories.jsonl, OUT/frames and the card.

    Args:
        on_bad: told of every bad record, which is then left out; None to raise at the first.

    Raises:
        DataError: a bad record, by its number in the file.
    """
    if (out / SET_FILE).exists():
        raise DataError(f"{out} holds a set already; name another folder")
    rows = read_rows(path)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: no record in it")
    reader = _Reader(place, FrameStore(out / "frames"), renderer)

    def trajectories() -> Iterator[Trajectory]:
        for where, row in (first, *rows):
            try:
                if not isinstance(row, dict):
                    raise DataError(f"{where}: not an object")
                yield reader.trajectory(parse(where, row))
            except DataError as error:
                if on_bad is None:
                    raise
                on_bad(error)

    return Imported(path=out / SET_FILE, count=write_set(out, trajectories()).trajectories)


@dataclass(slots=True)
class _Reader:
    place: Place
    store: FrameStore
    renderer: ChatRenderer | None

    def trajectory(self, foreign: Foreign) -> Trajectory:
        """Raises: DataError: media that are missing or not what they were, or an assistant's text that no model may say."""
        noted = _noted(foreign)
        media = _Frames(self, foreign, noted)
        system, tools, lines = _without_preamble(foreign)
        turns: list[Turn] = []
        pending: list[Message] = [Message(role="system", content=(system,))] if system else []
        for line in (r for one in lines for r in _responses(one)):
            if line.role != "assistant":
                stretch = _stretch(turns[-1].tool_calls if turns else (), len(pending))
                pending.append(Message(role=line.role, content=media.parts(line, stretch)))
                continue
            turns = _with_observations(turns, pending)
            turns.append(_turn(len(turns), tuple(pending), "".join(p for p in line.content if isinstance(p, str))))
            pending = []
        made = self._made(foreign, noted, tuple(turns), media)
        if self.renderer is None:
            return made
        try:
            return rerender(made, self.renderer, tools)
        except DataError as error:
            raise DataError(f"{foreign.where}: {error}") from None

    def _made(self, foreign: Foreign, noted: dict[str, Any], turns: tuple[Turn, ...], media: _Frames) -> Trajectory:
        where = foreign.where
        task = from_plain(Task, noted["task"], where) if noted else _task(foreign, turns, media)
        said = parse_said(turns[-1].completion.text, 0)
        video_id = task.evidence[0].video_id if task.evidence else media.video_id
        answer = None
        if noted:
            answer = from_plain(Answer, noted["answer"], where) if noted["answer"] else None
        elif said.answer is not None:
            choice = match_choice(said.answer, task.choices) if task.choices else None
            answer = Answer(text=said.answer, choice=choice, evidence=parse_spans(said.evidence or "", video_id))
        stop = StopReason.ANSWERED if answer is not None else StopReason.PARSE_ERROR
        calls = sum(len(t.tool_calls) for t in turns)
        shown = sum(len(t.context_frames) for t in turns)
        return Trajectory(
            id=str(noted.get("id", foreign.id)),
            group_id=str(noted.get("group_id", foreign.id)),
            task=task,
            turns=turns,
            answer=answer,
            stop_reason=StopReason(noted["stop_reason"]) if noted else stop,
            usage=Usage(turns=len(turns), tool_calls=calls, frames=shown),
            model=str(noted.get("model") or foreign.source),
            exact=False,
        )


class _Frames:
    """Gives the frames of one conversation, in order."""

    def __init__(self, reader: _Reader, foreign: Foreign, noted: dict[str, Any]) -> None:
        self._reader, self._where = reader, foreign.where
        self._noted = [from_plain(Frame, f, foreign.where) for f in noted.get("frames", ())]
        self._given, self._has_note = 0, bool(noted)
        self.video, self.video_id = "", self._noted[0].video_id if self._noted else foreign.id

    def parts(self, line: ForeignLine, stretch: tuple[float, float] | None) -> tuple[Part, ...]:
        pictures = sum(isinstance(p, Picture) for p in line.content)
        out: list[Part] = []
        seen = 0
        for piece in line.content:
            if isinstance(piece, str):
                out.append(piece)
            elif isinstance(piece, Film):
                out += self._film(piece)
            else:
                t_s, said = _time(out, stretch, seen, pictures)
                seen += 1
                if said and isinstance(out[-1], str):  # the renderer writes the time by itself
                    out[-1] = _STAMP.sub("", out[-1])
                out.append(self._picture(piece, t_s))
        return tuple(p for p in out if p != "")

    def _picture(self, picture: Picture, t_s: float) -> Frame:
        pixels = self._pixels(picture)
        n, self._given = self._given, self._given + 1
        if not self._has_note:
            return self._reader.store.put(self.video_id, DecodedFrame(timestamp_s=t_s, pixels=pixels))
        if n >= len(self._noted) or pixels_sha256(pixels) != self._noted[n].sha256:
            raise DataError(f"{self._where}: image {n} is not the frame that was exported")
        noted = self._noted[n]
        self._reader.store.put(noted.video_id, DecodedFrame(timestamp_s=noted.timestamp_s, pixels=pixels))
        return noted

    def _pixels(self, picture: Picture) -> np.ndarray:
        from PIL import Image

        source = picture.source
        try:
            opened = io.BytesIO(source) if isinstance(source, bytes) else self._reader.place.folder / source
            with Image.open(opened) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            name = "its bytes" if isinstance(source, bytes) else source
            raise DataError(f"{self._where}: image {self._given} cannot be read from {name} ({error})") from None

    def _film(self, film: Film) -> list[Frame]:
        path, place = self._reader.place.folder / film.path, self._reader.place
        try:
            video = Video.open(path)
            scale = min(1.0, place.max_side / max(video.width, video.height))
            size = (max(2, round(video.width * scale / 2) * 2), max(2, round(video.height * scale / 2) * 2))
            frames = video.frames_at(uniform_times(video.readable_s, place.frames), None if scale == 1 else size)
        except VideoError as error:
            raise DataError(f"{self._where}: {error}") from None
        self.video, self.video_id = str(path.resolve()), video.id
        return [self._reader.store.put(video.id, frame) for frame in frames]


def _noted(foreign: Foreign) -> dict[str, Any]:
    """What an export of ours noted; {} for others."""
    if foreign.extra is None:
        return {}
    try:
        noted = json.loads(foreign.extra)
        assert {"id", "task", "answer", "stop_reason", "frames"} <= noted.keys()
    except (ValueError, AttributeError, AssertionError, RecursionError):
        raise DataError(
            f"{foreign.where}: its column `playhead` is damaged; remove it to import what stands beside it"
        ) from None
    return noted


def _without_preamble(foreign: Foreign) -> tuple[str, tuple[ToolSpec, ...], Sequence[ForeignLine]]:
    """(system text without the tools, the tools that it or the record tells of, the other lines)."""
    lines = foreign.lines
    if not lines or lines[0].role != "system":
        return "", foreign.tools, lines
    text = "".join(p for p in lines[0].content if isinstance(p, str))
    start = text.find("# Tools\n\n")
    inside = text[start:].partition("<tools>\n")[2].partition("\n</tools>")[0]
    try:
        specs = tuple(tool_spec(json.loads(signature)) for signature in inside.splitlines())
    except (ValueError, KeyError, TypeError, AttributeError):
        specs = ()
    if start < 0 or not specs or tool_preamble([function(s) for s in specs]) != text[start:]:
        return text, foreign.tools, lines[1:]
    return text[:start].rstrip("\n"), specs, lines[1:]


def _responses(line: ForeignLine) -> Iterator[ForeignLine]:
    """A user's line that holds tool responses as the responses; any other as it is."""
    first = line.content[0] if line.content else ""
    if line.role not in ("user", "tool") or not isinstance(first, str) or not first.lstrip().startswith(_RESPONSE):
        yield line
        return
    current: list[Any] | None = None
    for piece in line.content:
        for part in re.split(r"(</?tool_response>)", piece) if isinstance(piece, str) else [piece]:
            if part == _RESPONSE:
                current = []
            elif part == "</tool_response>" and current is not None:
                yield ForeignLine(role="tool", content=_trimmed(current))
                current = None
            elif current is not None and part != "":
                current.append(part)
    if current:
        yield ForeignLine(role="tool", content=_trimmed(current))


def _trimmed(pieces: list[Any]) -> tuple[Any, ...]:
    """Without the line breaks that the tags bring."""
    out = list(pieces)
    if out and isinstance(out[0], str):
        out[0] = out[0].removeprefix("\n")
    if out and isinstance(out[-1], str):
        out[-1] = out[-1].removesuffix("\n")
    return tuple(p for p in out if p != "")


def _turn(index: int, messages: tuple[Message, ...], text: str) -> Turn:
    parsed = parse_said(text, index)
    return Turn(
        index=index,
        context_ids=(),
        context_frames=tuple(f for m in messages for f in m.frames),
        context_messages=messages,
        completion=Completion(token_ids=(), text=text, exact=False),
        thought=parsed.thought,
        tool_calls=parsed.tool_calls,
    )


def _with_observations(turns: list[Turn], pending: Sequence[Message]) -> list[Turn]:
    """The last turn with the results of its calls."""
    results = [m for m in pending if m.role == "tool"]
    if not turns or not results:
        return turns
    calls = turns[-1].tool_calls
    ids = [calls[i].id if i < len(calls) else f"result_{i}" for i in range(len(results))]
    seen = tuple(Observation(tool_call_id=i, content=m.content) for i, m in zip(ids, results, strict=True))
    return [*turns[:-1], replace(turns[-1], observations=seen)]


def _stretch(calls: Sequence[ToolCall], n: int) -> tuple[float, float] | None:
    """The seconds that the n-th call asked for, where it says so in one of the usual ways."""
    if n >= len(calls):
        return None
    try:
        arguments = json.loads(calls[n].arguments_json)
        for start, end in (("start_time", "end_time"), ("start_s", "end_s")):
            if start in arguments and end in arguments:
                return float(arguments[start]), float(arguments[end])
    except (ValueError, TypeError, RecursionError):
        pass
    return None


def _time(
    before: Sequence[Part], stretch: tuple[float, float] | None, i: int, count: int
) -> tuple[float, bool]:
    """(the time of the i-th of `count` images of a line, whether the text before it says it)."""
    last = before[-1] if before else None
    said = _STAMP.search(last) if isinstance(last, str) else None
    if said is not None:
        return float(said[1]), True
    if stretch is None:
        return 0.0, False
    start, end = stretch
    return start + (end - start) * i / max(1, count), False


def _task(foreign: Foreign, turns: Sequence[Turn], media: _Frames) -> Task:
    asked = next((m for m in turns[0].context_messages if m.role == "user"), None)
    question = "".join(p for p in asked.content if isinstance(p, str)).strip() if asked else ""
    return Task(id=foreign.id, question=question, video=media.video, source=foreign.source)

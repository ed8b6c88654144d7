"""The tool contract: a typed function with a docstring becomes what a model can call.

    def search_clips(ctx: ToolContext, query: str, k: int = 3) -> ToolResult:
        \"""First paragraph: what the model is told it does.

        Args:
            query: what the model is told about the argument.
        \"""

Its JSON schema comes from the type hints (pydantic) and the docstring (Google style), its name from the function. What
a model does wrong (bad JSON, wrong types, a time outside the video: `ToolFault`) becomes an observation with an error
that it can read and repair. What is not the model's fault (a broken file) is raised, for the agent to record.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import io
import json
import random
import re
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from ..core.aio import in_thread
from ..core.frames import FrameStore
from ..core.nouns import Clip, Frame, Observation, Part, ToolCall, ToolSpec
from ..core.video import Video
from .format import error_content

if TYPE_CHECKING:
    from langchain_core.tools import StructuredTool

    from ..memory.index import ClipIndex
    from ..memory.subtitles import Subtitles
    from ..memory.text import Kind, TextMemory

TIME_LIMIT_S = 60.0
END_SLACK_S = 1.0
"""A model reads the duration rounded, and may end a little after it."""
SHORTEST_S = 0.05
"""Times are written with one decimal: anything shorter starts and ends at the same time for the model."""


class Captioner(Protocol):
    """Whoever can say what a frame shows: in playhead, the Video-LMM itself."""

    async def caption(self, frames: Sequence[Frame]) -> list[str]:
        """One text a frame, in order."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """What tools act on: one video and all that is remembered of it, for one agent."""

    video: Video
    store: FrameStore
    index: ClipIndex
    texts: TextMemory
    captioner: Captioner | None = None
    frames_left: Callable[[], int] = lambda: 1 << 30
    """How many frames may still be shown; tools never return more."""
    max_side: int = 768
    """Frames are decoded at most this many pixels on their longer side: more than a Video-LMM looks at is waste."""
    notebook: TextMemory | None = None
    """What is kept across questions about a video; None where every question starts with an empty head."""
    shuffled: bool = False
    """Frames that are shown together change places, under the times that they were asked for."""

    @property
    def subtitles(self) -> Subtitles:
        """What is said in the video; read from its file when it is first asked for."""
        from ..memory.subtitles import subtitles_of

        return subtitles_of(self.video)

    @property
    def notes(self) -> TextMemory:
        """Where notes go: the notebook, or what this run remembers."""
        return self.texts if self.notebook is None else self.notebook

    def remember(self, clip: Clip, kind: Kind, text: str) -> None:
        """Keep `text` for this run, and in the notebook where there is one."""
        self.texts.add(self.video.id, clip, kind, text)
        if self.notebook is not None:
            self.notebook.add(self.video.id, clip, kind, text)

    def looked_at(self, frame: Frame, seconds: float) -> Clip:
        """The stretch that a shown frame stands for: `seconds` from its own time on, inside the video."""
        clip = Clip(video_id=self.video.id, start_s=frame.timestamp_s, end_s=frame.timestamp_s + seconds)
        return clip.clamp(0.0, self.video.readable_s)

    def frames_at(self, times_s: Sequence[float]) -> list[Frame]:
        """The frames shown at these times, put into the store; those that were asked for before are not decoded again."""
        video, size = self.video, frame_size(self.video, self.max_side)

        def decode(places: list[int]) -> list[Frame]:
            return [self.store.put(video.id, f) for f in video.frames_at([times_s[i] for i in places], size)]

        frames = self.store.shown.frames([(video.id, video.decoder, t, size) for t in times_s], decode)
        return shuffled(frames) if self.shuffled else frames


def frame_size(video: Video, max_side: int) -> tuple[int, int] | None:
    """(width, height) to decode at so that the longer side is at most `max_side`; None for the video's own size."""
    scale = max_side / max(video.width, video.height)
    return None if scale >= 1 else (max(1, round(video.width * scale)), max(1, round(video.height * scale)))


def shuffled(frames: Sequence[Frame]) -> list[Frame]:
    """The same times with each other's pictures, by an order that follows from the frames alone."""
    places = list(range(len(frames)))
    random.Random(",".join(f.sha256 for f in frames)).shuffle(places)
    return [replace(frames[place], timestamp_s=f.timestamp_s) for f, place in zip(frames, places, strict=True)]


class ToolFault(Exception):
    """The model asked for something that cannot be done; the message tells it what is allowed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolResult:
    """What a tool gives back: parts in the order in which the model reads them, and the stretches really looked at."""

    content: tuple[Part, ...]
    clips: tuple[Clip, ...] = ()


class _Arguments(BaseModel):
    """Base of every tool's arguments: numbers may come as text ("12.0"), nothing else is bent into shape."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans(cls, value: object) -> object:
        # Pydantic takes true for 1.0; a model that writes it has not understood the argument.
        if isinstance(value, bool) or (isinstance(value, list) and any(isinstance(v, bool) for v in value)):
            raise ValueError("true and false are not allowed here")
        return value


class Tool:
    """A function `(ctx, **arguments) -> ToolResult`, sync or async, as something a model can call.

    Raises:
        TypeError: the function lacks a docstring, a type hint, or the description of an argument.
    """

    def __init__(self, function: Callable[..., Any], *, time_limit_s: float = TIME_LIMIT_S):
        self._function, self.time_limit_s = function, time_limit_s
        described, arguments = _read_docstring(function)
        hints = typing.get_type_hints(function, include_extras=True)
        fields: dict[str, Any] = {}
        for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
            if name not in hints or name not in arguments:
                raise TypeError(f"tool {function.__name__}: argument {name} needs a type hint and a line under Args")
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (hints[name], Field(default, description=arguments[name]))
        self._arguments = create_model(function.__name__, __base__=_Arguments, **fields)
        self.spec = ToolSpec(name=function.__name__, description=described, parameters=_schema(self._arguments))

    async def run(self, call: ToolCall, ctx: ToolContext) -> Observation:
        """Do the call. Everything that is the model's fault, and the time limit, comes back as an observation.

        Raises:
            PlayheadError: what is not the model's fault, such as a file that broke.
        """
        started = time.perf_counter()
        try:
            arguments = self.parse(call.arguments_json)
            async with asyncio.timeout(self.time_limit_s):
                result = await self._call(ctx, arguments)
        except ToolFault as fault:
            return failed(call, str(fault), time.perf_counter() - started)
        except TimeoutError:
            message = f"{self.spec.name} took longer than {self.time_limit_s:g} s; ask for less at once."
            return failed(call, message, time.perf_counter() - started)
        wall_s = time.perf_counter() - started
        return Observation(tool_call_id=call.id, content=result.content, clips=result.clips, wall_s=wall_s)

    def parse(self, arguments_json: str) -> dict[str, Any]:
        """The arguments, checked against the schema.

        Raises:
            ToolFault: what is wrong with them, and what is allowed.
        """
        try:
            data = json.loads(arguments_json)
        except (ValueError, RecursionError) as error:
            raise ToolFault(f"the arguments are not JSON ({error}). {self.usage()}") from None
        if not isinstance(data, dict):
            raise ToolFault(f"the arguments must be a JSON object. {self.usage()}")
        try:
            parsed = self._arguments.model_validate(data)
        except ValidationError as error:
            raise ToolFault(f"{_faults(error)}. {self.usage()}") from None
        return {name: getattr(parsed, name) for name in type(parsed).model_fields}

    def usage(self) -> str:
        """How the tool is called, in one sentence."""
        properties = typing.cast(dict[str, dict[str, Any]], self.spec.parameters["properties"])
        required = typing.cast(list[str], self.spec.parameters.get("required", []))
        named = [f"{n} ({p.get('type', 'any')}{'' if n in required else ', optional'})" for n, p in properties.items()]
        return f"{self.spec.name} takes {', '.join(named)}."

    def as_langchain(self, ctx: ToolContext, *, images: bool = True) -> StructuredTool:
        """The tool, bound to `ctx`, for any LangGraph agent: content is text and (with `images`) image blocks, the
        artifact is the `Observation`. Arguments are checked here, not by LangChain, so faults read the same."""
        from langchain_core.tools import StructuredTool

        async def call(**arguments: Any) -> tuple[list[dict[str, Any]], Observation]:
            made = ToolCall(id="", name=self.spec.name, arguments_json=json.dumps(arguments))
            observation = await self.run(made, ctx)
            return _blocks(observation, ctx.store if images else None), observation

        def call_and_wait(**arguments: Any) -> tuple[list[dict[str, Any]], Observation]:
            return asyncio.run(call(**arguments))

        return StructuredTool(
            name=self.spec.name,
            description=self.spec.description,
            args_schema=dict(self.spec.parameters),
            func=call_and_wait,
            coroutine=call,
            response_format="content_and_artifact",
        )

    async def _call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        if inspect.iscoroutinefunction(self._function):
            return await self._function(ctx, **arguments)
        # Decoding and embedding would stop every other agent in the loop: they run in a thread.
        return await in_thread(self._function, ctx, **arguments)


def failed(call: ToolCall, message: str, wall_s: float = 0.0) -> Observation:
    """An observation that says why a call could not be done."""
    return Observation(tool_call_id=call.id, content=error_content(message), error=message, wall_s=wall_s)


def need_frames(ctx: ToolContext) -> int:
    """How many frames may still be shown.

    Raises:
        ToolFault: none.
    """
    left = ctx.frames_left()
    if left < 1:
        raise ToolFault("the frame budget is spent, no more frames can be shown. Answer from what you have seen.")
    return left


def check_time(name: str, t_s: float, video: Video) -> None:
    """Raises ToolFault unless `t_s` lies in the video (in its readable part, where a file is cut off)."""
    if not 0 <= t_s <= video.readable_s:
        raise ToolFault(f"{name} {t_s:.1f} is outside the video (0.0 to {video.readable_s:.1f}).")


def stretch(ctx: ToolContext, start_s: float, end_s: float) -> Clip:
    """The stretch that a model named; it may end a little after the video, whose length it reads rounded.

    Raises:
        ToolFault: it is not in the video, or empty.
    """
    duration_s = ctx.video.readable_s
    check_time("start_s", start_s, ctx.video)
    if duration_s < end_s <= duration_s + END_SLACK_S:
        end_s = duration_s
    check_time("end_s", end_s, ctx.video)
    if end_s - start_s < SHORTEST_S:
        raise ToolFault(f"end_s {end_s:.1f} must be after start_s {start_s:.1f}.")
    return Clip(video_id=ctx.video.id, start_s=start_s, end_s=end_s)


def _schema(arguments: type[BaseModel]) -> dict[str, object]:
    """The JSON schema without the titles and formalities that only cost context."""
    schema = arguments.model_json_schema()
    properties = {
        name: {key: value for key, value in fields.items() if key != "title"}
        for name, fields in schema.get("properties", {}).items()
    }
    return {"type": "object", "properties": properties, "required": schema.get("required", [])}


def _faults(error: ValidationError) -> str:
    said = []
    for fault in error.errors():
        where = ".".join(str(p) for p in fault["loc"])
        what = {"missing": "is missing", "extra_forbidden": "is not an argument"}.get(fault["type"])
        if what is None:
            what = fault["msg"].removeprefix("Value error, ").replace("Input should", "should")
            what += f" (got {fault['input']!r:.60})"
        said.append(f"{where} {what}")
    return "; ".join(said)


def _read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """(what it does, argument -> what it is), from a Google-style docstring; lines are joined."""
    text = inspect.getdoc(function)
    if not text:
        raise TypeError(f"tool {function.__name__}: needs a docstring, it is what the model is told")
    body, _, rest = text.partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", rest)[0]
    arguments: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", "\n" + section)[1:]:
        name, _, meaning = entry.partition(":")
        arguments[name.strip()] = " ".join(meaning.split())
    return " ".join(body.split()), arguments


def _blocks(observation: Observation, store: FrameStore | None) -> list[dict[str, Any]]:
    """Content blocks as LangChain has them: text, and each frame as its time and (with a store) a PNG."""
    blocks: list[dict[str, Any]] = []
    for part in observation.content:
        if isinstance(part, str):
            blocks.append({"type": "text", "text": part})
            continue
        blocks.append({"type": "text", "text": f"<{part.timestamp_s:.1f} seconds>"})
        if store is not None:
            blocks.append({"type": "image", "base64": _png(store, part), "mime_type": "image/png"})
    return blocks


def _png(store: FrameStore, frame: Frame) -> str:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(store.pixels(frame)).save(out, format="PNG")
    return base64.b64encode(out.getvalue()).decode("ascii")

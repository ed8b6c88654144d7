"""What goes over the wire: playhead's messages as the body of a chat completion. Pure functions.

A frame is `<12.0 seconds>` and an image, as Qwen3-VL writes the frames of a video. Two ways of calling tools:

native  the request's `tools`; a turn that called tools goes back as content (its thoughts) and `tool_calls`, the results as
        messages of role "tool". Some servers drop the content beside `tool_calls` (`transformers serve` does): there the
        model does not see its earlier thoughts.
text    for servers and models without tool calling: the tools are described in the system message and called as
        `<tool_call>` text; a turn goes back word for word, results inside `<tool_response>` as the user's. Word for word what
        Qwen's own templates write, so there it loses nothing and can be token-exact.

Whatever was asked for, a reply is read both ways (`reply`).

A forced answer is an assistant's message that the model must go on with. Servers that can do that (`prefill`) are told so; the
others are asked in words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from typing import Any, Literal, get_args

from ....core.nouns import Frame, Message, Part, ToolCall, ToolSpec
from ....core.policy import GenerateRequest
from ...renderers.chat import ChatRenderer
from ...renderers.parsing import parse
from ...renderers.preamble import tool_preamble, tool_responses
from .text import TextRenderer

Json = dict[str, Any]
Calls = Literal["native", "text"]
FramesAs = Literal["images", "video"]
ImageFormat = Literal["png", "jpeg"]
ToolFrames = Literal["tool", "user"]

ANSWER_IN_WORDS = (
    "Time is up. Answer now with what you have seen, without calling tools, in exactly this form:\n"
    "<answer>your short answer</answer>\n<evidence>START-END</evidence>"
)
"""Said instead of a prefilled answer."""

CALL_TEXT = re.compile(r"<tool_call>.*?</tool_call>", re.S)
FRAMES_FOLLOW = "The frames of these results, in their order:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """What a server takes. The defaults suit vLLM, SGLang and `transformers serve`; `HOSTED` the strict schema."""

    calls: Calls = "native"
    frames: FramesAs = "images"
    """"video": frames that follow each other go as one `video/jpeg` part after their times in text (vLLM)."""
    image_format: ImageFormat = "png"
    """png is lossless; jpeg is about a tenth of the bytes."""
    tool_frames: ToolFrames = "tool"
    """Whose message carries the frames that tools show: the strict schema allows none in a tool's."""
    prefill: bool = False
    """The server takes `continue_final_message` (vLLM, SGLang)."""
    stream: bool = True
    extra: Json = field(default_factory=dict)
    """Fields set last in the body; None takes a field out."""

    def __post_init__(self) -> None:
        """Raises: ValueError: a value that is none of its field's."""
        kinds = {"calls": Calls, "frames": FramesAs, "image_format": ImageFormat, "tool_frames": ToolFrames}
        for name, kind in kinds.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"Dialect.{name} must be one of {', '.join(get_args(kind))}; got {getattr(self, name)!r}")

    @property
    def image_kind(self) -> str:
        return "jpeg" if self.frames == "video" else self.image_format


HOSTED = Dialect(tool_frames="user", image_format="jpeg")


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes messages in a dialect. `image(frame)` is the frame's base64; the renderer says how its family writes the
    time of a frame, and what outside text must not contain."""

    dialect: Dialect
    renderer: ChatRenderer | TextRenderer
    image: Callable[[Frame], str]

    def body(self, request: GenerateRequest, model: str) -> Json:
        """The request as JSON. `n` is never sent: many servers ignore it, so K samples are K requests."""
        messages, opening = _split_opening(request.messages)
        text = self.dialect.calls == "text"
        sampling = request.sampling
        body: Json = {
            "model": model,
            "messages": self._text(messages, request.tools) if text else self._native(messages),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
        }
        if sampling.top_p < 1:
            body["top_p"] = sampling.top_p
        if self.dialect.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if request.tools and not text:
            body["tools"] = [self._tool(t) for t in request.tools]
        if opening is not None:
            self._open(body, opening)
        for key, value in self.dialect.extra.items():
            body.pop(key, None) if value is None else body.update({key: value})
        return body

    def _open(self, body: Json, opening: str) -> None:
        """Make the model go on with `opening`."""
        messages = body["messages"]
        if self.dialect.prefill:
            cut = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
            if cut is None:
                messages.append({"role": "assistant", "content": opening})
            else:
                cut["content"] += opening
            body |= {"add_generation_prompt": False, "continue_final_message": True}
            return
        messages.append({"role": "user", "content": ANSWER_IN_WORDS})
        if "tools" in body:
            body["tool_choice"] = "none"

    # Native calls.

    def _native(self, messages: Sequence[Message]) -> list[Json]:
        out: list[Json] = []
        at = turn = 0
        while at < len(messages):
            message = messages[at]
            at += 1
            if message.role == "assistant":
                results = list(takewhile(lambda m: m.role == "tool", messages[at:]))
                calls = parse(message.text, turn).tool_calls
                turn += 1
                # Servers refuse calls without results, and results without calls.
                if calls and len(calls) == len(results):
                    out += [_called(message.text, calls), *self._results(calls, results)]
                    at += len(results)
                    continue
            out.append(self._plain(message))
        return out

    def _results(self, calls: Sequence[ToolCall], results: Sequence[Message]) -> list[Json]:
        out: list[Json] = []
        shown: list[Frame] = []
        for call, result in zip(calls, results, strict=True):
            if self.dialect.tool_frames == "user":
                shown += result.frames
                content: Any = self.renderer.disarm(result.text)
            else:
                content = _simple(self._parts(result.content))
            out.append({"role": "tool", "tool_call_id": call.id, "content": content})
        if shown:
            out.append({"role": "user", "content": self._parts((FRAMES_FOLLOW, *shown))})
        return out

    def _plain(self, message: Message) -> Json:
        if message.role == "assistant":
            return {"role": "assistant", "content": message.text}
        role = "user" if message.role == "tool" else message.role
        return {"role": role, "content": _simple(self._parts(message.content))}

    # Calls as text.

    def _text(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Json]:
        out: list[Json] = []
        if tools:
            told = tool_preamble([self._tool(t) for t in tools])
            if messages and messages[0].role == "system":
                told = f"{self.renderer.disarm(messages[0].text)}\n\n{told}"
                messages = messages[1:]
            out.append({"role": "system", "content": told})
        for role, same in groupby(messages, key=lambda m: m.role):
            if role == "tool":
                results: Any = tool_responses([self._parts(m.content) for m in same])
                out.append({"role": "user", "content": _simple(_merged(results))})
            else:
                out += map(self._plain, same)
        return out

    # Parts.

    def _parts(self, parts: Sequence[Part]) -> list[Json]:
        out: list[Json] = []
        for run in _runs(parts):
            if isinstance(run, str):
                out.append(_said(self.renderer.disarm(run)))
            elif self.dialect.frames == "video" and len(run) > 1:
                frames = ",".join(self.image(f) for f in run)
                out.append(_said("".join(self.renderer.stamp(f.timestamp_s) for f in run)))
                out.append({"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}})
            else:
                for frame in run:
                    url = f"data:image/{self.dialect.image_kind};base64,{self.image(frame)}"
                    out += [
                        _said(self.renderer.stamp(frame.timestamp_s)),
                        {"type": "image_url", "image_url": {"url": url}},
                    ]
        return _merged(out)

    def _tool(self, spec: ToolSpec) -> Json:
        function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
        return {"type": "function", "function": self._disarmed(function)}

    def _disarmed(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.renderer.disarm(value)
        if isinstance(value, dict):
            return {self.renderer.disarm(k): self._disarmed(v) for k, v in value.items()}
        return [self._disarmed(v) for v in value] if isinstance(value, (list, tuple)) else value


def _called(text: str, calls: Sequence[ToolCall]) -> Json:
    """An assistant's turn with its calls apart from its words."""
    functions = [{"name": c.name, "arguments": _object(c.arguments_json)} for c in calls]
    return {
        "role": "assistant",
        "content": CALL_TEXT.sub("", text).strip(),
        "tool_calls": [{"id": c.id, "type": "function", "function": f} for c, f in zip(calls, functions, strict=True)],
    }


def _object(arguments: str) -> str:
    """Arguments as servers insist on them in the history: a JSON object. What was none is told as what it was."""
    try:
        sound = isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        sound = False
    return arguments if sound else json.dumps({"unreadable": arguments})


def _split_opening(messages: Sequence[Message]) -> tuple[Sequence[Message], str | None]:
    """(history, the assistant's opening that the model must go on with; None where it may speak freely)."""
    if messages and messages[-1].role == "assistant":
        return messages[:-1], messages[-1].text
    return messages, None


def _runs(parts: Sequence[Part]) -> list[str | list[Frame]]:
    """Adjacent texts joined, so that no control token hides across a seam; adjacent frames together."""
    runs: list[str | list[Frame]] = []
    for part in parts:
        last = runs[-1] if runs else None
        if isinstance(part, str):
            if isinstance(last, str):
                runs[-1] = last + part
            else:
                runs.append(part)
        elif isinstance(last, list):
            last.append(part)
        else:
            runs.append([part])
    return runs


def _said(text: str) -> Json:
    return {"type": "text", "text": text}


def _merged(parts: Sequence[Json]) -> list[Json]:
    merged: list[Json] = []
    for part in parts:
        if merged and part["type"] == merged[-1]["type"] == "text":
            merged[-1] = _said(merged[-1]["text"] + part["text"])
        else:
            merged.append(part)
    return merged


def _simple(parts: list[Json]) -> str | list[Json]:
    """Text alone as a string: some servers take nothing else from the system."""
    return "".join(p["text"] for p in parts) if all(p["type"] == "text" for p in parts) else parts

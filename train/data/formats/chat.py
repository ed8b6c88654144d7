"""Chat: a trajectory as lines of a conversation, which every export writes in its own way.

    system, user                what the agent said before the first turn
    assistant                   a completion, to the byte
    tool                        an observation
    assistant, trained=False    what the agent put in the model's mouth, or a turn that was forced

Before an image stands its time, as `<12.0 seconds>`, the way Qwen3-VL reads frames. Text that would read as a placeholder of
the other tool (`<image>` in a question) is broken with a space, or every image after it would be the wrong one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ....agent.renderers.preamble import tool_preamble
from ....core.codec import to_plain
from ....core.errors import PlayheadError
from ....core.frames import FrameStore
from ....core.nouns import Frame, Part, ToolSpec
from ....core.trajectory import SCHEMA_VERSION, Trajectory

Role = Literal["system", "user", "assistant", "tool"]
EXTRA = "playhead"
"""The column with what the other tool's schema has no place for."""
_PLACEHOLDER = re.compile(r"<(?=(?:image|video|audio)>)")
_CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.S)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    role: Role
    content: tuple[Part, ...]
    trained: bool = True
    """Of an assistant's line: whether the model said it."""

    def text(self, image: str = "<image>") -> str:
        """The line as a string with a placeholder for each image, its time before it."""
        return "".join(safe(p) if isinstance(p, str) else stamp(p) + image for p in self.content)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat:
    """A trajectory to export; `frames` are its images in order."""

    id: str
    lines: tuple[Line, ...]
    tools: tuple[ToolSpec, ...]
    extra: str

    @property
    def frames(self) -> tuple[Frame, ...]:
        return tuple(p for line in self.lines for p in line.content if isinstance(p, Frame))

    @property
    def wholly_trained(self) -> bool:
        return all(line.trained for line in self.lines if line.role == "assistant")

    def tools_json(self, *, wrapped: bool = True) -> str:
        """The tools' signatures as one JSON text; `wrapped` in OpenAI's {"type": "function"}."""
        specs = [function(spec) for spec in self.tools]
        return json.dumps(specs if wrapped else [s["function"] for s in specs], ensure_ascii=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What an export wrote, and how the other tool is told of it."""

    path: Path
    count: int
    images: int
    left_out: int = 0
    """Trajectories with words that the model did not say, where the format cannot say so."""
    use: str = ""


def stamp(frame: Frame) -> str:
    return f"<{frame.timestamp_s:.1f} seconds>"


def function(spec: ToolSpec) -> dict[str, object]:
    """A tool's signature in OpenAI's form."""
    inner = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": inner}


def chats(trajectories: Iterable[Trajectory], tools: Sequence[ToolSpec]) -> Iterator[Chat]:
    """The trajectories as chats; those in which no tool was called were told of none."""
    for trajectory in trajectories:
        called = any(turn.tool_calls for turn in trajectory.turns)
        extra = {
            "schema_version": SCHEMA_VERSION,
            "id": trajectory.id,
            "group_id": trajectory.group_id,
            "model": trajectory.model,
            "task": to_plain(trajectory.task),
            "answer": to_plain(trajectory.answer),
            "stop_reason": trajectory.stop_reason.value,
            "frames": [to_plain(f) for f in trajectory.frames],
        }
        yield Chat(
            id=trajectory.id,
            lines=tuple(_lines(trajectory)),
            tools=tuple(tools) if called else (),
            extra=json.dumps(extra, ensure_ascii=True),
        )


def _lines(trajectory: Trajectory) -> Iterator[Line]:
    for turn in trajectory.turns:
        for message in turn.context_messages:
            yield Line(role=message.role, content=message.content, trained=message.role != "assistant")
        yield Line(role="assistant", content=(turn.completion.text,), trained=not turn.completion.forced)


def as_user(chat: Chat) -> Chat:
    """The same with observations as the user's `<tool_response>`s and the tools in the system message, all as Qwen's chat
    template writes them: for tools whose own tool calling loses images or tools."""
    lines: list[Line] = []
    for i, line in enumerate(chat.lines):
        if line.role != "tool":
            lines.append(line)
            continue
        response = ("<tool_response>\n", *line.content, "\n</tool_response>")
        if i and chat.lines[i - 1].role == "tool":
            lines[-1] = replace(lines[-1], content=(*lines[-1].content, "\n", *response))
        else:
            lines.append(Line(role="user", content=response))
    if chat.tools:
        preamble = tool_preamble([function(s) for s in chat.tools])
        if lines[0].role == "system":
            lines[0] = replace(lines[0], content=(*lines[0].content, "\n\n" + preamble))
        else:
            lines.insert(0, Line(role="system", content=(preamble,)))
    return replace(chat, lines=tuple(lines))


def split_calls(text: str) -> tuple[str, tuple[str, ...]]:
    """(what stands before the calls, the JSON of each); no calls where they would not be written back to the byte."""
    head, thinking, said = text.partition("</think>")
    before, said = (head + thinking, said) if thinking else ("", text)
    bodies = tuple(_CALL.findall(said))
    start = said.find("<tool_call>")
    content = before + said[: max(0, start)]
    if not bodies or join_calls(content, bodies) != text or not all(_is_call(b) for b in bodies):
        return text, ()
    return content, bodies


def join_calls(content: str, bodies: Sequence[str]) -> str:
    return content + "\n".join(f"<tool_call>\n{body}\n</tool_call>" for body in bodies)


def _is_call(body: str) -> bool:
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(call, dict) and isinstance(call.get("name"), str) and isinstance(call.get("arguments"), dict)


def safe(text: str) -> str:
    """Text in which nothing reads as a placeholder."""
    return _PLACEHOLDER.sub("< ", text)


class Images:
    """Frames as PNG files `folder/HASH.png`, each written once; or as bytes.

    Raises:
        DataError: a frame that the store lacks, by the conversation that shows it.
    """

    def __init__(self, store: FrameStore, folder: Path | None = None) -> None:
        self._store, self._folder = store, folder
        self._written: set[str] = set()
        self.count = 0

    def bytes_of(self, frame: Frame, where: str) -> bytes:
        """The PNG file of a frame."""
        import io

        from PIL import Image

        from ....core.errors import DataError

        try:
            pixels = self._store.pixels(frame)
        except PlayheadError as error:
            raise DataError(f"trajectory {where}: {error}") from None
        self.count += 1
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def file_of(self, frame: Frame, where: str) -> str:
        """Its path, relative to the folder that `folder` is in."""
        assert self._folder is not None, "files need a folder"
        path = self._folder / f"{frame.sha256}.png"
        if frame.sha256 not in self._written:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                beside = path.with_name(f".{path.name}.part")
                beside.write_bytes(self.bytes_of(frame, where))
                beside.replace(path)
            self._written.add(frame.sha256)
        return f"{self._folder.name}/{path.name}"

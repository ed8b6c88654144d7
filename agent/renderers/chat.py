"""Conversations as tokens, exactly as the checkpoint's own chat template writes them: what all families share.

`start` is the template applied to the first messages (tools included); `extend` is what the template adds after an
assistant's turn, cut out of a two-message rendering. So for every template that does not rewrite history

    start(m) + completion + extend(completion, n)  ==  the template applied to m + [assistant] + n

token for token (a property test), and history is never decoded and encoded again. A family says how it writes the time of a
frame, what its template's image placeholder expands to, and how pixels become the vision tower's input.

A template without tool calling gets `preamble.py`: the tools in the system message, their results in a user's turn.

Text that came from outside (a question, a caption, a tool's description) can never become a control token: every added
token of the tokenizer that occurs in it is broken with a space (`< |im_end|>`) before the template sees it.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from ...core.errors import ModelError
from ...core.nouns import Frame, Message, Part, ToolSpec
from ...core.policy import Parsed, Rendered
from .parsing import one_line, parse
from .preamble import TAGS, Content, tool_preamble, tool_responses

_SENTINEL = "assistant-turn"
_PROBE = {"name": "probe_of_tools", "description": "", "parameters": {"type": "object", "properties": {}}}


class PixelSource(Protocol):
    """What gives the pixels of a frame by reference: `core.frames.FrameStore`."""

    def pixels(self, frame: Frame) -> np.ndarray: ...


class ChatRenderer(ABC):
    """The `Renderer` of a family; a processor is all it needs.

    Args:
        processor: the family's processor with a tokenizer, an image processor and a chat template.
    """

    image_token: ClassVar[str]
    """The placeholder of one image in what the template writes."""
    never_sampled: ClassVar[tuple[str, ...]]
    """Tokens that only the environment may write: a sampled placeholder has no pixels behind it."""
    turn_ends: ClassVar[tuple[str, ...]]
    """Tokens, besides the tokenizer's EOS, with which a completion may end."""
    default_system: ClassVar[str] = ""
    """What the template writes as the system message where a conversation has none."""

    def __init__(self, processor: Any) -> None:
        if not getattr(processor, "chat_template", None):
            raise ModelError("the checkpoint has no chat template: add chat_template.jinja to its folder")
        self.processor = processor
        self.tokenizer = processor.tokenizer

    @classmethod
    def from_checkpoint(cls, folder: str | Path) -> Self:
        """Raises: ModelError when the folder holds no readable processor."""
        from transformers import AutoProcessor

        try:
            return cls(AutoProcessor.from_pretrained(str(folder)))
        except ModelError:
            raise
        except Exception as error:  # what transformers raises over a damaged file is whatever its code stumbles over
            why = _damaged(Path(folder)) or one_line(error)
            raise ModelError(f"{folder}: no processor could be loaded ({why})") from None

    # What a family says.

    @abstractmethod
    def stamp(self, t_s: float) -> str:
        """The time of a frame, written before it."""

    @abstractmethod
    def frame_text(self, frame: Frame) -> str:
        """What the template's placeholder becomes: the frame's placeholder tokens and what stands around them."""

    @abstractmethod
    def frame_tokens(self, frame: Frame) -> int:
        """How many image placeholder tokens the frame takes."""

    def frame_span(self, frame: Frame) -> int:
        """Tokens from the frame's first placeholder to its last."""
        return self.frame_tokens(frame)

    # Tokens that mean something to the loop around the model.

    @cached_property
    def image_token_id(self) -> int:
        return int(self.processor.image_token_id)

    @cached_property
    def pad_token_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    @cached_property
    def stop_token_ids(self) -> tuple[int, ...]:
        """A completion ends with (and includes) one of these."""
        vocab = self.tokenizer.get_vocab()
        named = [vocab[t] for t in self.turn_ends if t in vocab]
        return tuple(dict.fromkeys([int(self.tokenizer.eos_token_id), *named]))

    @cached_property
    def suppressed_token_ids(self) -> tuple[int, ...]:
        """Tokens that must not be sampled."""
        vocab = self.tokenizer.get_vocab()
        return tuple(vocab[t] for t in self.never_sampled if t in vocab)

    @cached_property
    def knows_tools(self) -> bool:
        """Whether the checkpoint's template writes tools, or at least their results, by itself."""
        roles = ("user", "assistant", "tool")
        try:
            text = self._apply([{"role": r, "content": _text(r)} for r in roles], tools=[_function(_PROBE)], open_turn=True)
        except ModelError:  # a template may refuse a role that it does not know
            return False
        return _PROBE["name"] in text or "<tool_response>" in text

    # The Renderer contract.

    def start(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Rendered:
        specs = [self._tool(t) for t in tools] or None
        plain = self._messages(messages)
        if specs and not self.knows_tools:
            plain, specs = self._with_preamble(plain, specs), None
        text = self._apply(plain, tools=specs, open_turn=True)
        return self._rendered(text, tuple(f for m in messages for f in m.frames))

    def extend(self, completion_ids: Sequence[int], messages: Sequence[Message]) -> Rendered:
        before = self._before
        after = self._apply([*_HEAD, *self._messages(messages)], tools=None, open_turn=True)
        if not after.startswith(before):
            raise ModelError("the checkpoint's chat template rewrites history, so a conversation cannot be extended")
        closing = before[before.rindex(_SENTINEL) + len(_SENTINEL) :]
        if completion_ids and completion_ids[-1] in self.stop_token_ids:
            closing = closing.removeprefix(self.decode(completion_ids[-1:]))
        return self._rendered(closing + after[len(before) :], tuple(f for m in messages for f in m.frames))

    @cached_property
    def _before(self) -> str:
        """What the template writes of a conversation that ends with an assistant's turn."""
        return self._apply(_HEAD, tools=None, open_turn=False)

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def completion_text(self, token_ids: Sequence[int]) -> str:
        """The text of a completion without the token that ended it."""
        ended = bool(token_ids) and token_ids[-1] in self.stop_token_ids
        return self.decode(token_ids[:-1] if ended else token_ids)

    def parse(self, text: str, turn_index: int) -> Parsed:
        return parse(text, turn_index)

    # Text.

    def _rendered(self, text: str, frames: tuple[Frame, ...]) -> Rendered:
        pieces = text.split(self.image_token)
        if len(pieces) != len(frames) + 1:
            raise ModelError(f"the chat template wrote {len(pieces) - 1} image placeholders for {len(frames)} frames")
        expanded = [pieces[0]]
        for frame, piece in zip(frames, pieces[1:], strict=True):
            expanded += [self.frame_text(frame), piece]
        return Rendered(token_ids=self.encode("".join(expanded)), frames=frames)

    def _apply(self, messages: list[dict[str, Any]], *, tools: list[Any] | None, open_turn: bool) -> str:
        try:
            return self.processor.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=open_turn
            )
        except Exception as error:  # jinja raises what the template's author chose
            raise ModelError(f"the checkpoint's chat template failed: {one_line(error)}") from error

    def _messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        plain: list[dict[str, Any]] = []
        for role, same in groupby((self._message(m) for m in messages), key=lambda m: m["role"]):
            if role == "tool" and not self.knows_tools:
                plain.append({"role": "user", "content": tool_responses([m["content"] for m in same])})
            else:
                plain += same
        return plain

    def _message(self, message: Message) -> dict[str, Any]:
        content: Content = []
        for part in _merged(message.content):
            if isinstance(part, Frame):
                content += [{"type": "text", "text": self.stamp(part.timestamp_s)}, {"type": "image"}]
            else:
                content.append({"type": "text", "text": self.disarm(part)})
        return {"role": message.role, "content": content or _text("")}

    def _with_preamble(self, plain: list[dict[str, Any]], specs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        system = plain[0]["content"] if plain and plain[0]["role"] == "system" else _text(self.default_system)
        rest = plain[1:] if plain and plain[0]["role"] == "system" else plain
        gap = "\n\n" if any(part.get("text") for part in system) else ""
        return [{"role": "system", "content": [*system, *_text(gap + tool_preamble(specs))]}, *rest]

    def _tool(self, spec: ToolSpec) -> dict[str, Any]:
        function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
        return _function(self._disarm_all(function))

    def _disarm_all(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.disarm(value)
        if isinstance(value, dict):
            return {self.disarm(k): self._disarm_all(v) for k, v in value.items()}
        return [self._disarm_all(v) for v in value] if isinstance(value, (list, tuple)) else value

    def disarm(self, text: str) -> str:
        """`text` with every added token of the tokenizer broken by a space after its first character."""
        while self._control.search(text):
            text = self._control.sub(lambda m: f"{m[0][0]} {m[0][1:]}", text)
        return text

    @cached_property
    def _control(self) -> re.Pattern[str]:
        # Placeholders and turn marks are guarded even where a tokenizer lacks them: we split the text at the placeholder.
        names = {*self.tokenizer.get_added_vocab(), self.image_token, *self.never_sampled, self.turn_ends[0]}
        if not self.knows_tools:
            names.update(TAGS)
        breakable = sorted((n for n in names if len(n) > 2 and n[0] == "<"), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, breakable)))


_FILES = (
    *("tokenizer_config.json", "tokenizer.json", "processor_config.json", "preprocessor_config.json"),
    *("video_preprocessor_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json"),
)
"""What a processor is read from, where the folder has it; each holds a JSON object."""


def _damaged(folder: Path) -> str:
    """The first of a processor's files that holds no JSON object, in words; "" where all do."""
    for name in _FILES:
        try:
            if (folder / name).is_file() and not isinstance(json.loads((folder / name).read_bytes()), dict):
                return f"{name} holds no JSON object"
        except (OSError, ValueError, RecursionError) as error:
            return f"{name} cannot be read: {one_line(error)}"
    return ""


def _function(function: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": function}


def _text(text: str) -> Content:
    return [{"type": "text", "text": text}]


_HEAD: list[dict[str, Any]] = [
    {"role": "user", "content": _text("u")},
    {"role": "assistant", "content": _text(_SENTINEL)},
]


def _merged(parts: Sequence[Part]) -> list[Part]:
    """Adjacent texts joined, so that a control token cannot hide across a seam."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    return merged

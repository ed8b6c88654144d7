"""Qwen3-VL conversations as tokens, exactly as the checkpoint's own chat template writes them.

`start` is the template applied to the first messages (tools included); `extend` is what the template adds after an
assistant's turn, cut out of a two-message rendering. So for every template of the family

    start(m) + completion + extend(completion, n)  ==  the template applied to m + [assistant] + n

token for token (a property test), and history is never decoded and encoded again. A frame is written as Qwen3-VL writes
the frames of a video, `<12.0 seconds><|vision_start|><|image_pad|>...<|vision_end|>`, but as an image: one timestamp, one grid.

Text that came from outside (a question, a caption, a tool's description) can never become a control token: every added
token of the tokenizer that occurs in it is broken with a space (`< |im_end|>`) before the template sees it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...core.errors import ModelError
from ...core.nouns import Frame, Message, Part, ToolCall, ToolSpec
from ...core.policy import Parsed, Rendered

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_PAD = "<|image_pad|>"
NEVER_SAMPLED = (IMAGE_PAD, "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|im_start|>")
"""Tokens that only the environment may write: a sampled placeholder has no pixels behind it."""

_SENTINEL = "assistant-turn"


class PixelSource(Protocol):
    """What gives the pixels of a frame by reference: `core.frames.FrameStore`."""

    def pixels(self, frame: Frame) -> np.ndarray: ...


class Qwen3VLRenderer:
    """The `Renderer` of Qwen3-VL checkpoints; a processor is all it needs.

    Args:
        processor: a `Qwen3VLProcessor` with a tokenizer, an image processor and a chat template.
    """

    def __init__(self, processor: Any) -> None:
        if not getattr(processor, "chat_template", None):
            raise ModelError("the checkpoint has no chat template: add chat_template.jinja to its folder")
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self._patches = lru_cache(maxsize=256)(self._count_patches)

    @classmethod
    def from_checkpoint(cls, folder: str | Path) -> Qwen3VLRenderer:
        """Raises: ModelError when the folder holds no readable processor."""
        from transformers import AutoProcessor

        try:
            return cls(AutoProcessor.from_pretrained(str(folder)))
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise ModelError(f"{folder}: no processor could be loaded ({_one_line(error)})") from None

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
        named = [vocab[t] for t in ("<|im_end|>", "<|endoftext|>") if t in vocab]
        return tuple(dict.fromkeys([int(self.tokenizer.eos_token_id), *named]))

    @cached_property
    def suppressed_token_ids(self) -> tuple[int, ...]:
        """Tokens that must not be sampled."""
        vocab = self.tokenizer.get_vocab()
        return tuple(vocab[t] for t in NEVER_SAMPLED if t in vocab)

    # The Renderer contract.

    def start(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Rendered:
        specs = [self._tool(t) for t in tools] or None
        text = self._apply([self._message(m) for m in messages], tools=specs, open_turn=True)
        return self._rendered(text, tuple(f for m in messages for f in m.frames))

    def extend(self, completion_ids: Sequence[int], messages: Sequence[Message]) -> Rendered:
        head = [{"role": "user", "content": _text("u")}, {"role": "assistant", "content": _text(_SENTINEL)}]
        before = self._apply(head, tools=None, open_turn=False)
        after = self._apply([*head, *(self._message(m) for m in messages)], tools=None, open_turn=True)
        if not after.startswith(before):
            raise ModelError("the checkpoint's chat template rewrites history, so a conversation cannot be extended")
        closing = before[before.rindex(_SENTINEL) + len(_SENTINEL) :]
        end = self.tokenizer.eos_token
        if completion_ids and completion_ids[-1] == self.tokenizer.eos_token_id:
            closing = closing.removeprefix(end)
        return self._rendered(closing + after[len(before) :], tuple(f for m in messages for f in m.frames))

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

    def frame_tokens(self, frame: Frame) -> int:
        return self._patches(frame.height, frame.width) // self.processor.image_processor.merge_size**2

    # Pixels.

    def pixel_inputs(self, frames: Sequence[Frame], store: PixelSource) -> tuple[Tensor, Tensor]:
        """`pixel_values` (sum of patches, channels * temporal_patch * patch^2) float32 and `image_grid_thw` (F, 3) int64
        of at least one frame, by the checkpoint's own image processor."""
        images = [np.array(store.pixels(f)) for f in frames]  # copies: the store's own arrays are read-only
        out = self.processor.image_processor(images=images, return_tensors="pt", input_data_format="channels_last")
        return out["pixel_values"], out["image_grid_thw"]

    def image_grids(self, frames: Sequence[Frame]) -> list[tuple[int, int, int]]:
        """`image_grid_thw` of frames without touching their pixels: (1, rows, columns) in patches."""
        return [self._grid(f.height, f.width) for f in frames]

    def _grid(self, height: int, width: int) -> tuple[int, int, int]:
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        p = self.processor.image_processor
        rows, columns = smart_resize(
            height, width, p.patch_size * p.merge_size, p.size["shortest_edge"], p.size["longest_edge"]
        )
        return 1, rows // p.patch_size, columns // p.patch_size

    def _count_patches(self, height: int, width: int) -> int:
        return int(self.processor.image_processor.get_number_of_image_patches(height, width))

    # Text.

    def _rendered(self, text: str, frames: tuple[Frame, ...]) -> Rendered:
        pieces = text.split(IMAGE_PAD)
        if len(pieces) != len(frames) + 1:
            raise ModelError(f"the chat template wrote {len(pieces) - 1} image placeholders for {len(frames)} frames")
        expanded = [pieces[0]]
        for frame, piece in zip(frames, pieces[1:], strict=True):
            expanded += [IMAGE_PAD * self.frame_tokens(frame), piece]
        return Rendered(token_ids=self.encode("".join(expanded)), frames=frames)

    def _apply(self, messages: list[dict[str, Any]], *, tools: list[Any] | None, open_turn: bool) -> str:
        try:
            return self.processor.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=open_turn
            )
        except Exception as error:  # jinja raises what the template's author chose
            raise ModelError(f"the checkpoint's chat template failed: {_one_line(error)}") from error

    def _message(self, message: Message) -> dict[str, Any]:
        content: list[dict[str, str]] = []
        for part in _merged(message.content):
            if isinstance(part, Frame):
                content += [{"type": "text", "text": f"<{part.timestamp_s:.1f} seconds>"}, {"type": "image"}]
            else:
                content.append({"type": "text", "text": self.disarm(part)})
        return {"role": message.role, "content": content}

    def _tool(self, spec: ToolSpec) -> dict[str, Any]:
        function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
        return {"type": "function", "function": self._disarm_all(function)}

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
        names = {*self.tokenizer.get_added_vocab(), *NEVER_SAMPLED, "<|im_end|>"}
        breakable = sorted((n for n in names if len(n) > 2 and n[0] == "<"), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, breakable)))


def _text(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _merged(parts: Sequence[Part]) -> list[Part]:
    """Adjacent texts joined, so that a control token cannot hide across a seam."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


# What the model wrote.

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.S)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.S)
_EVIDENCE = re.compile(r"<evidence>(.*?)</evidence>", re.S)
_CALL_FORM = '<tool_call>\n{"name": NAME, "arguments": {...}}\n</tool_call>'


def parse(text: str, turn_index: int) -> Parsed:
    """What a completion says. Calls and answers inside a thought do not count.

    The opening `<think>` may be missing (some templates write it themselves); a thought that never ends is an error.
    """
    thought, said = _split_thought(text)
    if said is None:
        return Parsed(thought=thought, error="the thought has no </think>.")
    bodies = _CALL.findall(said)
    calls: list[ToolCall] = []
    for i, body in enumerate(bodies):
        call = _read_call(body, f"call_{turn_index}_{i}")
        if isinstance(call, str):
            return Parsed(thought=thought, error=call)
        calls.append(call)
    answer, evidence = _ANSWER.search(said), _EVIDENCE.search(said)
    error = None
    if said.count("<tool_call>") != len(bodies):
        error = f"a <tool_call> has no </tool_call>. The form is {_CALL_FORM}."
    elif answer is None and "<answer>" in said:
        error = "the <answer> has no </answer>."
    elif answer is None and not calls:
        error = "there is neither a tool call nor an answer."
    elif answer is not None and not answer[1].strip():
        error = "the <answer> is empty."
    return Parsed(
        thought=thought,
        tool_calls=tuple(calls) if error is None else (),
        answer=answer[1].strip() if answer and error is None else None,
        evidence=evidence[1].strip() if evidence and error is None else None,
        error=error,
    )


def _split_thought(text: str) -> tuple[str, str | None]:
    """(thought, what follows it); the second is None when the thought is not closed."""
    head, closed, rest = text.partition("</think>")
    if closed:
        return head.replace("<think>", "", 1).strip(), rest
    if "<think>" in text:
        return text.partition("<think>")[2].strip(), None
    return "", text


def _read_call(body: str, call_id: str) -> ToolCall | str:
    """The call, or what was wrong with it."""
    try:
        data = json.loads(body)
    except (json.JSONDecodeError, RecursionError) as error:
        return f"the tool call is not JSON ({_one_line(error)}). The form is {_CALL_FORM}."
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        return f"the tool call has no name. The form is {_CALL_FORM}."
    arguments = data.get("arguments", {})
    # Some models write the arguments as a string of JSON: the tool's door reads either.
    raw = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(id=call_id, name=data["name"], arguments_json=raw)

"""LongVT: OpenAI-style multi-turn messages in parquet, as its SFT and RFT sets are published and lmms-engine reads them.

    messages   [{"role", "content": [{"type": "text", "text"}
                                     | {"type": "image_url", "image_url": {"url"}}
                                     | {"type": "video_url", "video_url": {"url"}}]}]

Checked against EvolvingLMMs-Lab/lmms-engine (which LongVT's README names for SFT): `datasets/naive/vision_dataset.py`
(`load_from_json`), `utils/train_utils.py` (`convert_open_to_hf`) and `processor/qwen2_vl_processor.py`, which learns every
message that is not of role "user" or "system"; so observations are the user's `<tool_response>`s, and trajectories with words
that the model did not say itself are left out. Images are files beside the parquet (`data_folder`). lmms-engine 0.1.4 takes
parquet and a `data_folder` only in the list `datasets` of `dataset_format: yaml`.

`parse` takes records of parquet, .json and .jsonl files: contents are lists of such parts, or texts with calls in `<tool_call>`
tags or in OpenAI's `tool_calls`, and with `<image>` and `<video>` for the columns `images` and `videos`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ....core.errors import DataError
from ....core.frames import FrameStore
from ....core.nouns import Frame, ToolSpec
from ....core.trajectory import Trajectory
from .chat import EXTRA, Exported, Images, Line, Role, as_user, chats, join_calls, safe, stamp
from .files import write_parquet
from .foreign import Film, Foreign, ForeignLine, Media, Picture, Piece, call_texts, conversation

_ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


def export(trajectories: Iterable[Trajectory], store: FrameStore, out: Path, tools: Sequence[ToolSpec]) -> Exported:
    """Write OUT/train.parquet and OUT/images."""
    from datasets import Features, List, Value

    url = {"url": Value("string")}
    part = {"type": Value("string"), "text": Value("string"), "image_url": url, "video_url": url}
    message = {"role": Value("string"), "content": List(part)}
    features = Features({"id": Value("string"), "messages": List(message), EXTRA: Value("string")})
    images, left_out = Images(store, out / "images"), 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal left_out
        for chat in map(as_user, chats(trajectories, tools)):
            if not chat.wholly_trained:
                left_out += 1
                continue
            messages = [{"role": line.role, "content": _parts(line, images, chat.id)} for line in chat.lines]
            yield {"id": chat.id, "messages": messages, EXTRA: chat.extra}

    path = out / "train.parquet"
    count = write_parquet(path, features, rows())
    use = f"lmms-engine: dataset_format: yaml, datasets: [{{path: {path}, data_folder: {out}, data_type: parquet}}]"
    return Exported(path=path, count=count, images=images.count, left_out=left_out, use=use)


def _parts(line: Line, images: Images, where: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for part in line.content:
        text = stamp(part) if isinstance(part, Frame) else safe(part)
        if parts and parts[-1]["type"] == "text":
            parts[-1]["text"] += text
        else:
            parts.append({"type": "text", "text": text})
        if isinstance(part, Frame):
            parts.append({"type": "image_url", "image_url": {"url": images.file_of(part, where)}})
    return parts


def parse(where: str, row: dict[str, Any]) -> Foreign:
    """The conversation of one record.

    Raises:
        DataError: it is no such conversation, or its media do not fit its messages.
    """
    messages = row.get("messages")
    if isinstance(messages, str):  # some sets keep the list as JSON
        messages = _json(where, messages)
    if not isinstance(messages, list):
        raise DataError(f"{where}: it has no `messages`")
    media = Media(where, row.get("images"), row.get("videos"))
    lines = [_line(where, message, media) for message in messages]
    media.check_used()
    return conversation(where, row, lines, "longvt")


def _line(where: str, message: Any, media: Media) -> ForeignLine:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise DataError(f"{where}: a message has none of the roles {', '.join(_ROLES)}")
    role: Role = message["role"]
    pieces = _pieces(where, message.get("content"), media)
    calls = message.get("tool_calls") or ()
    if calls:
        head = "".join(p for p in pieces if isinstance(p, str))
        bodies = [body for call in calls for body in _openai_call(where, call)]
        pieces = (join_calls(head, bodies),)
    return ForeignLine(role=role, content=pieces)


def _pieces(where: str, content: Any, media: Media) -> tuple[Piece, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return media.pieces(content)
    if not isinstance(content, list):
        raise DataError(f"{where}: a message's content is neither text nor a list")
    out: list[Piece] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            out.append(part["text"])
        elif kind in ("image_url", "video_url"):
            out.append(_linked(where, kind, part.get(kind)))
        else:
            raise DataError(f"{where}: a part of type {kind!r}; known are text, image_url, video_url")
    return tuple(out)


def _linked(where: str, kind: str, link: Any) -> Picture | Film:
    url = link.get("url") if isinstance(link, dict) else link
    if not isinstance(url, str):
        raise DataError(f"{where}: an {kind} has no url")
    if url.startswith("data:"):
        import base64
        import binascii

        try:
            return Picture(source=base64.b64decode(url.partition(",")[2], validate=True))
        except (ValueError, binascii.Error):
            raise DataError(f"{where}: an {kind} whose data is not base64") from None
    if "://" in url and not url.startswith("file://"):
        raise DataError(f"{where}: {url:.80} is on a network; nothing is fetched: give files")
    path = url.removeprefix("file://")
    return Picture(source=path) if kind == "image_url" else Film(path=path)


def _openai_call(where: str, call: Any) -> Iterator[str]:
    inner = call.get("function") if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise DataError(f"{where}: a tool call has no function name")
    arguments = inner.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = _json(where, arguments)
    yield from call_texts(where, json.dumps({"name": inner["name"], "arguments": arguments}, ensure_ascii=False))


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from None

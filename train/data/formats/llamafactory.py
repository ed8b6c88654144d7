"""LLaMA-Factory: ShareGPT conversations with tools and images, and the `dataset_info.json` that names their columns.

    conversations   [{"from": "human" | "gpt" | "function_call" | "observation", "value": text}], in turn
    system, tools   text; `tools` is JSON of {"name", "description", "parameters"}
    images          paths beside the file, as many as there are `<image>`

Checked against hiyouga/LLaMA-Factory at commit ff6d4d12: `data/README.md` (ShareGPT, multimodal image), `data/converter.py`
(`SharegptDatasetConverter`: human and observation at even places, gpt and function_call at odd ones, system first),
`mm_plugin.py` (`_validate_messages`) and `formatter.py` (`FunctionFormatter`: a call may stand in `<tool_call>` tags behind the
thought). Several results of one turn stand in one observation, separated as Qwen's template separates them. It learns every gpt
and function_call message, so trajectories with words that the model did not say itself are left out.

`parse` takes records of .json, .jsonl and .parquet with the default tags or OpenAI's (messages, role, content).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ....core.errors import DataError
from ....core.frames import FrameStore
from ....core.nouns import ToolSpec
from ....core.trajectory import Trajectory
from .chat import EXTRA, Chat, Exported, Images, Line, Role, chats, join_calls, split_calls
from .files import write_list
from .foreign import Foreign, ForeignLine, Media, call_texts, conversation, tool_spec

NEXT_RESULT = "\n</tool_response>\n<tool_response>\n"
_ROLES: dict[str, Role] = {
    **{"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"},
    **{"observation": "tool", "tool": "tool", "function_call": "assistant"},
}


def export(trajectories: Iterable[Trajectory], store: FrameStore, out: Path, tools: Sequence[ToolSpec]) -> Exported:
    """Write OUT/playhead.json, OUT/images and OUT/dataset_info.json."""
    images, left_out = Images(store, out / "images"), 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal left_out
        for chat in chats(trajectories, tools):
            if chat.wholly_trained:
                yield _row(chat, images)
            else:
                left_out += 1

    path = out / "playhead.json"
    count = write_list(path, rows())
    columns = {"messages": "conversations", "system": "system", "tools": "tools", "images": "images"}
    info = {"playhead": {"file_name": path.name, "formatting": "sharegpt", "columns": columns}}
    beside = out / f".dataset_info.{os.getpid()}.part"
    beside.write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    beside.replace(out / "dataset_info.json")
    use = f"llamafactory-cli train: dataset_dir: {out}, dataset: playhead, media_dir: {out}"
    return Exported(path=path, count=count, images=images.count, left_out=left_out, use=use)


def _row(chat: Chat, images: Images) -> dict[str, Any]:
    system = "".join(line.text() for line in chat.lines if line.role == "system")
    said: list[dict[str, str]] = []
    for line in chat.lines:
        if line.role == "system":
            continue
        message = _message(line)
        if said and said[-1]["from"] == message["from"]:
            # Only results and remarks of the user come twice in a row.
            between = NEXT_RESULT if line.role == "tool" else "\n"
            said[-1]["value"] += between + message["value"]
        else:
            said.append(message)
    return {
        "id": chat.id,
        "conversations": said,
        "system": system,
        "tools": chat.tools_json(wrapped=False) if chat.tools else "",
        "images": [images.file_of(f, chat.id) for f in chat.frames],
        EXTRA: chat.extra,
    }


def _message(line: Line) -> dict[str, str]:
    if line.role != "assistant":
        return {"from": "observation" if line.role == "tool" else "human", "value": line.text()}
    content, calls = split_calls(line.text())
    if not calls:
        return {"from": "gpt", "value": content}
    together = calls[0] if len(calls) == 1 else f"[{', '.join(calls)}]"
    return {"from": "function_call", "value": join_calls(content, [together]) if content else together}


def parse(where: str, row: dict[str, Any]) -> Foreign:
    """The conversation of one record.

    Raises:
        DataError: it is no such conversation, or its images do not fit its messages.
    """
    said = row.get("conversations") or row.get("messages")
    if not isinstance(said, list):
        raise DataError(f"{where}: it has neither `conversations` nor `messages`")
    media = Media(where, row.get("images"), row.get("videos"))
    lines: list[ForeignLine] = []
    if row.get("system"):
        lines.append(ForeignLine(role="system", content=(str(row["system"]),)))
    for message in said:
        lines += _lines(where, message, media)
    media.check_used()
    return conversation(where, row, lines, "llama-factory", _tools(where, row.get("tools")))


def _tools(where: str, text: Any) -> tuple[ToolSpec, ...]:
    if not text:
        return ()
    try:
        specs = json.loads(text) if isinstance(text, str) else text
        return tuple(tool_spec(spec) for spec in specs)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{where}: its tools are not JSON signatures ({error})") from None


def _lines(where: str, message: Any, media: Media) -> list[ForeignLine]:
    if not isinstance(message, dict):
        raise DataError(f"{where}: a message is no object")
    tag, text = message.get("from", message.get("role")), message.get("value", message.get("content"))
    if tag not in _ROLES or not isinstance(text, str):
        raise DataError(f"{where}: a message from {tag!r} of type {type(text).__name__}; known are {', '.join(_ROLES)}")
    if tag == "function_call":
        return [ForeignLine(role="assistant", content=(_calls(where, text),))]
    if tag == "observation":
        return [ForeignLine(role="tool", content=media.pieces(part)) for part in text.split(NEXT_RESULT)]
    return [ForeignLine(role=_ROLES[tag], content=media.pieces(text))]


def _calls(where: str, text: str) -> str:
    head, opened, rest = text.partition("<tool_call>")
    if not opened:
        thought, closed, rest = text.rpartition("</think>")
        return join_calls(thought + closed + ("\n" if closed else ""), list(call_texts(where, rest)))
    return join_calls(head, list(call_texts(where, rest.partition("</tool_call>")[0])))

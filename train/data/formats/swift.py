"""ms-swift: JSON lines of its agent format, images as files.

    tools      the signatures as one JSON text
    messages   system, user, assistant; a call is a message "tool_call" with its JSON, a result a "tool_response" with JSON
    images     paths, as many as there are `<image>` in the messages

Checked against modelscope/ms-swift, `docs/source_en/Instruction/Agent-support.md` and `Customization/Custom-dataset.md` (commit
3602360a5). Consecutive assistant messages are one turn there, so what the agent put in the model's mouth is a message of its
own with `"loss": false`: nothing is left out. An observation is `{"result": TEXT}`, since contents of tools have to be JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ....core.frames import FrameStore
from ....core.nouns import ToolSpec
from ....core.trajectory import Trajectory
from .chat import EXTRA, Exported, Images, Line, chats, split_calls
from .files import write_lines


def export(trajectories: Iterable[Trajectory], store: FrameStore, out: Path, tools: Sequence[ToolSpec]) -> Exported:
    """Write OUT/train.jsonl and OUT/images."""
    images = Images(store, out.resolve() / "images")

    def rows() -> Iterator[dict[str, Any]]:
        for chat in chats(trajectories, tools):
            row: dict[str, Any] = {"messages": [m for line in chat.lines for m in _messages(line)]}
            if chat.tools:
                row["tools"] = chat.tools_json()
            # Absolute, as its documentation asks for.
            row["images"] = [str(out.resolve() / images.file_of(f, chat.id)) for f in chat.frames]
            yield {**row, EXTRA: chat.extra}

    path = out / "train.jsonl"
    count = write_lines(path, rows())
    return Exported(path=path, count=count, images=images.count, use=f"swift sft --dataset {path} --agent_template hermes")


def _messages(line: Line) -> list[dict[str, Any]]:
    if line.role == "tool":
        return [{"role": "tool_response", "content": json.dumps({"result": line.text()}, ensure_ascii=False)}]
    if line.role != "assistant":
        return [{"role": line.role, "content": line.text()}]
    content, calls = split_calls(line.text())
    said = [{"role": "assistant", "content": content}] if content else []
    said += [{"role": "tool_call", "content": body} for body in calls]
    return said if line.trained else [{**message, "loss": False} for message in said]

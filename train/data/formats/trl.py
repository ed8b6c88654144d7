"""TRL and Hugging Face datasets: one parquet with messages, tools and images, which `datasets.load_dataset` reads.

    load_dataset("parquet", data_files="OUT/train.parquet")["train"]

    messages   [{"role", "content": [{"type": "text", "text"} | {"type": "image"}]}]      every content is a list
    images     the frames, as the `datasets.Image` feature
    tools      the signatures as one JSON text (a struct column would give every tool the arguments of all others)

Checked against TRL 1.16: `docs/source/dataset_formats.md` (conversational, vision, tool calling) and `trl/data_utils.py`,
`prepare_multimodal_messages`; in the tests by `datasets` and by TRL's own vision collator. Two things there decide the form:
that function counts only images of messages that are not of role "tool", so observations stand in the user's messages as Qwen's
template writes them; and the vision collator does not render the column `tools`, so the system message tells of the tools.
The loss mask is not in a message: TRL's `assistant_only_loss=True` finds it again for checkpoints whose template is the
stock one of a family that TRL has markers for (Qwen3-VL, Qwen2.5-VL, SmolVLM), and refuses others, the embedded model
among them. Trajectories with words that the model did not say itself are left out. To train on what was sampled, to the
token, use our JSONL and `playhead train sft`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ....core.frames import FrameStore
from ....core.nouns import Frame, ToolSpec
from ....core.trajectory import Trajectory
from .chat import EXTRA, Chat, Exported, Images, Line, as_user, chats, safe, stamp
from .files import write_parquet


def export(trajectories: Iterable[Trajectory], store: FrameStore, out: Path, tools: Sequence[ToolSpec]) -> Exported:
    """Write OUT/train.parquet."""
    from datasets import Features, Image, List, Value

    part = {"type": Value("string"), "text": Value("string")}
    features = Features(
        {
            "messages": List({"role": Value("string"), "content": List(part)}),
            "images": List(Image()),
            "tools": Value("string"),
            EXTRA: Value("string"),
        }
    )
    images, left_out = Images(store), 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal left_out
        for chat in chats(trajectories, tools):
            if chat.wholly_trained:
                yield _row(chat, images)
            else:
                left_out += 1

    path = out / "train.parquet"
    count = write_parquet(path, features, rows())
    use = f'load_dataset("parquet", data_files="{path}")'
    return Exported(path=path, count=count, images=images.count, left_out=left_out, use=use)


def _row(chat: Chat, images: Images) -> dict[str, Any]:
    told = as_user(chat)
    return {
        "messages": [{"role": line.role, "content": content(line)} for line in told.lines],
        "images": [{"bytes": images.bytes_of(f, chat.id), "path": None} for f in told.frames],
        "tools": chat.tools_json(),
        EXTRA: chat.extra,
    }


def content(line: Line) -> list[dict[str, str | None]]:
    """Texts and images in order; the time of an image ends the text before it."""
    parts: list[dict[str, str | None]] = []
    for part in line.content:
        text = safe(part) if isinstance(part, str) else stamp(part)
        if parts and parts[-1]["type"] == "text":
            parts[-1]["text"] = f"{parts[-1]['text']}{text}"
        else:
            parts.append({"type": "text", "text": text})
        if isinstance(part, Frame):
            parts.append({"type": "image", "text": None})
    return parts

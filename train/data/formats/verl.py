"""verl: one parquet for its multi-turn SFT.

    messages   [{"role": "system" | "user" | "assistant", "content": text}], `<image>` where an image stands
    images     [{"bytes": PNG, "path": null}], as many as there are `<image>`

Checked against volcengine/verl, `verl/utils/dataset/multiturn_sft_dataset.py` (`_build_messages`, which splits every content at
`<image>` and asserts that all images are used) and `vision_utils.process_image`. It trains every assistant message, so
trajectories with words that the model did not say itself are left out. The tools are told in the system message, and there is
no column `tools`: parquet would give each tool the arguments of all others as nulls, and verl would put them before the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ....core.frames import FrameStore
from ....core.nouns import ToolSpec
from ....core.trajectory import Trajectory
from .chat import EXTRA, Exported, Images, as_user, chats
from .files import write_parquet


def export(trajectories: Iterable[Trajectory], store: FrameStore, out: Path, tools: Sequence[ToolSpec]) -> Exported:
    """Write OUT/train.parquet."""
    from datasets import Features, Image, List, Value

    features = Features(
        {
            "messages": List({"role": Value("string"), "content": Value("string")}),
            "images": List(Image()),
            EXTRA: Value("string"),
        }
    )
    images, left_out = Images(store), 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal left_out
        for chat in map(as_user, chats(trajectories, tools)):
            if not chat.wholly_trained:
                left_out += 1
                continue
            yield {
                "messages": [{"role": line.role, "content": line.text()} for line in chat.lines],
                "images": [{"bytes": images.bytes_of(f, chat.id), "path": None} for f in chat.frames],
                EXTRA: chat.extra,
            }

    path = out / "train.parquet"
    count = write_parquet(path, features, rows())
    use = f"data.train_files={path} data.multiturn.messages_key=messages"
    return Exported(path=path, count=count, images=images.count, left_out=left_out, use=use)

"""Tasks as verl's dataset: one parquet row a task.

python -m playhead.train.recipes.verl.export --data WORLD --out tasks.parquet

prompt        the question as messages, for verl's own length filter; the agent builds the real prompt
agent_name    "playhead": which agent loop plays it
data_source, ability, reward_model      verl's own columns
extra_info    {"index", "task"}: the task as JSON, which the loop reads
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....core.codec import to_plain
from ....core.nouns import Task
from ....core.tasks import read_tasks

AGENT_NAME = "playhead"


def row_of(task: Task, index: int) -> dict[str, Any]:
    """The row of one task."""
    return {
        "prompt": [{"role": "user", "content": task.question}],
        "agent_name": AGENT_NAME,
        "data_source": task.source,
        "ability": task.kind,
        "reward_model": {"style": "rule", "ground_truth": task.answer or ""},
        "extra_info": {"index": index, "task": json.dumps(to_plain(task))},
    }


def export(data: Path, out: Path) -> int:
    """Write the tasks of `data`; returns how many. Videos are absolute paths, which all workers must see.

    Raises:
        DataError: `data` holds no readable tasks.
    """
    from datasets import Dataset

    rows = [row_of(task, i) for i, task in enumerate(read_tasks(data))]
    beside = out.with_name(f".{out.name}.part")
    Dataset.from_list(rows).to_parquet(str(beside))
    beside.replace(out)
    return len(rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tasks.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="parquet file")
    args = parser.parse_args(argv)
    print(f"{export(args.data, args.out)} tasks in {args.out}")


if __name__ == "__main__":
    main()

"""Formats: sets of trajectories in the forms that other trainers read, and theirs as sets.

Our JSONL is the source of truth (`core/trajectory.py`, `sets.py`): tokens, masks, log-probs, the environment's log, frames by
reference and hash. An export is a view of its messages, calls, tools and images, in the schema that the other tool documents
(each module names it). Every export carries a column `playhead` with what that schema has no place for (task, answer, times and
hashes of the frames), so that it reads back as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.errors import DataError

if TYPE_CHECKING:
    from ....core.frames import FrameStore
    from ....core.nouns import ToolSpec
    from ....core.trajectory import Trajectory
    from .chat import Exported
    from .foreign import Foreign

    Exporter = Callable[[Iterable[Trajectory], FrameStore, Path, Sequence[ToolSpec]], Exported]
    Parser = Callable[[str, dict[str, Any]], Foreign]

EXPORTS = {"trl": "trl", "ms-swift": "swift", "llama-factory": "llamafactory", "verl": "verl", "longvt": "longvt"}
IMPORTS = {"longvt": "longvt", "llama-factory": "llamafactory"}
"""Names on the command line, and the module that holds `export` or `parse`. Imported when asked for."""


def exporter(name: str) -> Exporter:
    """Raises: DataError: no such format."""
    return _member(EXPORTS, name, "export")


def parser(name: str) -> Parser:
    """Raises: DataError: no such format."""
    return _member(IMPORTS, name, "parse")


def _member(table: dict[str, str], name: str, member: str) -> Any:
    if name not in table:
        raise DataError(f"format {name!r} is unknown; take one of {', '.join(table)}")
    return getattr(import_module(f".{table[name]}", __name__), member)

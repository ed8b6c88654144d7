"""Saving: how the state of an episode is written into LangGraph's checkpoints, and read back.

Our own types go through `core.codec` as plain values under their name, and only names on the list come back as types.
What is LangGraph's own passes through its serializer, with pickle off and no type of anybody else allowed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from ..core.budget import Usage
from ..core.codec import from_plain, to_plain
from ..core.nouns import Answer, StopReason, Task
from ..core.trajectory import Turn
from .episode import Pending

_TYPES: dict[str, type] = {t.__name__: t for t in (Answer, Pending, Task, Turn, Usage)}
_TAG = "playhead"


class StateSerializer:
    """A `SerializerProtocol` of LangGraph."""

    def __init__(self) -> None:
        self._plain = JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=None)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return self._plain.dumps_typed(_pack(obj))

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Raises: DataError: a value that does not fit its type."""
        return _unpack(self._plain.loads_typed(data))


def _pack(value: Any) -> Any:
    name = type(value).__name__
    if _TYPES.get(name) is type(value):
        return {_TAG: name, "value": to_plain(value)}
    if isinstance(value, StopReason):
        return {_TAG: "StopReason", "value": value.value}
    if type(value) is tuple:
        return {_TAG: "tuple", "value": [_pack(v) for v in value]}
    if type(value) is list:
        return [_pack(v) for v in value]
    return {k: _pack(v) for k, v in value.items()} if type(value) is dict else value


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(v) for v in value]
    if not isinstance(value, dict):
        return value
    name = value.get(_TAG)
    if name == "tuple":
        return tuple(_unpack(v) for v in value["value"])
    if name == "StopReason":
        return StopReason(value["value"])
    if name in _TYPES:
        return from_plain(_TYPES[name], value["value"], f"checkpoint, {name}")
    return {k: _unpack(v) for k, v in value.items()}


@asynccontextmanager
async def open_saver(path: Path | None) -> AsyncIterator[Any]:
    """A saver of the graph's state in an SQLite file, made where there is none; None for no file."""
    if path is None:
        yield None
        return
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    path.parent.mkdir(parents=True, exist_ok=True)
    async with aiosqlite.connect(path, timeout=30.0) as connection:
        yield AsyncSqliteSaver(connection, serde=StateSerializer())

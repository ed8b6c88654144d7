"""Frozen dataclasses to plain JSON values and back, driven by their type hints: one mechanism for every file we write.

Reading ignores fields it does not know (written by a newer version) and fills missing ones from their defaults; a
value of the wrong shape is a `DataError` that names the field.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from .errors import DataError

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Dataclasses to dicts, tuples to lists, enums to their values; anything JSON already is passes through."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: to_plain(v) for k, v in value.items()}
    return value


def from_plain(cls: type[T], data: Any, where: str = "") -> T:
    """The dataclass `cls` from what `to_plain` gave.

    Raises:
        DataError: a missing field without a default, or a value that does not fit its type; `where` names the place.
    """
    return _read(cls, data, where or cls.__name__)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _read(hint: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _read_union(typing.get_args(hint), data, where)
    if origin is tuple:
        if not isinstance(data, (list, tuple)):
            raise DataError(f"{where}: expected a list, got {data!r:.80}")
        item = typing.get_args(hint)[0]
        return tuple(_read(item, v, f"{where}[{i}]") for i, v in enumerate(data))
    if origin is dict or hint is dict:
        if not isinstance(data, dict):
            raise DataError(f"{where}: expected an object, got {data!r:.80}")
        _, item = typing.get_args(hint) or (Any, Any)
        return {k: _read(item, v, f"{where}.{k}") for k, v in data.items()}
    if origin is typing.Literal:
        if data not in typing.get_args(hint):
            raise DataError(f"{where}: expected one of {list(typing.get_args(hint))}, got {data!r:.80}")
        return data
    if dataclasses.is_dataclass(hint):
        return _read_dataclass(typing.cast(type, hint), data, where)
    return _read_scalar(hint, data, where)


def _read_union(options: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in options:
        return None
    rest = [o for o in options if o is not type(None)]
    # Our unions are a scalar beside a dataclass (text or frame): an object can only be the dataclass.
    chosen = [o for o in rest if dataclasses.is_dataclass(o) == isinstance(data, dict)] or rest
    return _read(chosen[0], data, where)


def _read_dataclass(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise DataError(f"{where}: expected an object with the fields of {cls.__name__}, got {data!r:.80}")
    hints = _hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    values = {k: _read(hints[k], v, f"{where}.{k}") for k, v in data.items() if k in known}
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {error}") from None


def _read_scalar(hint: Any, data: Any, where: str) -> Any:
    if hint is Any or hint is object:
        return data
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(data)
        except ValueError:
            raise DataError(f"{where}: expected one of {[m.value for m in hint]}, got {data!r:.80}") from None
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        try:
            return float(data)
        except OverflowError:
            raise DataError(f"{where}: expected a number that a float can hold, got {data!r:.80}") from None
    if isinstance(hint, type) and (not isinstance(data, hint) or (isinstance(data, bool) and hint is not bool)):
        raise DataError(f"{where}: expected {hint.__name__}, got {data!r:.80}")
    return data

"""Foreign: a conversation of another tool before it becomes a trajectory: lines of texts, pictures and films.

What a reader gives is what stands in its file, with the places of its media in the text; nothing is opened yet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ....core.errors import DataError
from ....core.nouns import ToolSpec
from .chat import EXTRA, Role

_PLACE = re.compile(r"<(image|video)>")


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """An image: a path, or the bytes of its file."""

    source: str | bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Film:
    """A whole video, of which the model saw some frames."""

    path: str


Piece = str | Picture | Film


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignLine:
    role: Role
    content: tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreign:
    """One conversation; `where` names its record."""

    where: str
    id: str
    lines: tuple[ForeignLine, ...]
    tools: tuple[ToolSpec, ...] = ()
    extra: str | None = None
    source: str = "imported"


def conversation(
    where: str, row: dict[str, Any], lines: Sequence[ForeignLine], source: str, tools: tuple[ToolSpec, ...] = ()
) -> Foreign:
    """Raises: DataError: nobody answers in it."""
    if not any(line.role == "assistant" for line in lines):
        raise DataError(f"{where}: no assistant says anything in it")
    extra = row.get(EXTRA)
    named = row.get("id")
    number = where.rsplit(" ", 1)[-1]
    return Foreign(
        where=where,
        id=str(named) if named is not None else f"{source}-{number}",
        lines=tuple(lines),
        tools=tools,
        extra=extra if isinstance(extra, str) else None,
        source=source,
    )


def tool_spec(signature: dict[str, Any]) -> ToolSpec:
    """From OpenAI's form, or what is inside of it.

    Raises:
        KeyError, TypeError: it has no name.
    """
    inner = signature.get("function", signature)
    return ToolSpec(name=inner["name"], description=inner.get("description", ""), parameters=inner.get("parameters", {}))


class Media:
    """The images and videos of a record, given out in the order of their placeholders.

    Raises:
        DataError: not a list of paths (or of objects with a path or bytes).
    """

    def __init__(self, where: str, images: Any, videos: Any) -> None:
        self._where = where
        self._images = [_source(where, i) for i in _listed(where, "images", images)]
        self._videos = [_source(where, v) for v in _listed(where, "videos", videos)]
        self._used = {"image": 0, "video": 0}

    def pieces(self, text: str) -> tuple[Piece, ...]:
        """The text with its placeholders replaced.

        Raises:
            DataError: more placeholders than there are media.
        """
        out: list[Piece] = []
        for i, part in enumerate(_PLACE.split(text)):
            if i % 2 == 0:
                out += [part] if part else []
                continue
            given = self._images if part == "image" else self._videos
            n = self._used[part]
            self._used[part] = n + 1
            if n >= len(given):
                raise DataError(f"{self._where}: more <{part}> in its messages than its {len(given)} {part}s")
            source = given[n]
            if part == "video" and isinstance(source, bytes):
                raise DataError(f"{self._where}: a video has to be a path")
            out.append(Film(path=str(source)) if part == "video" else Picture(source=source))
        return tuple(out)

    def check_used(self) -> None:
        """Raises: DataError: media that no placeholder stands for."""
        for kind, given in (("image", self._images), ("video", self._videos)):
            if self._used[kind] != len(given):
                raise DataError(f"{self._where}: {len(given)} {kind}s, but {self._used[kind]} <{kind}> in its messages")


def _listed(where: str, name: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, (str, bytes, dict)):
        return [value]
    if not isinstance(value, list):
        raise DataError(f"{where}: {name} is no list")
    return value


def _source(where: str, value: Any) -> str | bytes:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path") or value.get("image") or value.get("url") or value.get("video")
    if not isinstance(value, (str, bytes)):
        raise DataError(f"{where}: an image or video is neither a path nor bytes")
    return value.removeprefix("file://") if isinstance(value, str) else value


def call_texts(where: str, value: str) -> Iterator[str]:
    """The JSON of each call in a text that holds one call or a list of them.

    Raises:
        DataError: it is not JSON, or not calls.
    """
    try:
        calls = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: a function call is not JSON ({error})") from None
    if isinstance(calls, dict):
        yield value.strip()
        return
    if not isinstance(calls, list) or not all(isinstance(c, dict) for c in calls):
        raise DataError(f"{where}: a function call is neither an object nor a list of objects")
    yield from (json.dumps(c, ensure_ascii=False) for c in calls)

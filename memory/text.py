"""TextMemory: what is known of a video in words (captions, subtitles, notes), found by its words.

One SQLite FTS5 table for all videos, in a file or in memory. Words are stemmed (porter), so "stars" finds "star". A
caption or note about the same clip replaces the older one. Safe from several threads; several processes may share
a file.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal

from ..core.errors import DataError
from ..core.nouns import Clip

Kind = Literal["caption", "subtitle", "note"]

_TABLE = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS notes USING fts5("
    "text, video_id UNINDEXED, start_s UNINDEXED, end_s UNINDEXED, kind UNINDEXED, tokenize='porter unicode61')"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextHit:
    """A remembered text, the clip it is about, and how well it matches (higher is better; bm25)."""

    clip: Clip
    kind: str
    text: str
    score: float


class TextMemory:
    """Notes on disk at `path`, or in memory for ":memory:".

    Raises:
        DataError: the file cannot be opened as a memory of texts.
    """

    def __init__(self, path: Path | str = ":memory:"):
        self._lock = Lock()
        self._path = str(path)
        try:
            if self._path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path, timeout=10.0, check_same_thread=False)
            with self._db:
                self._db.execute(_TABLE)
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"{path}: not a memory of texts ({error}); remove the file to start anew") from error

    def add(self, video_id: str, clip: Clip, kind: Kind, text: str) -> None:
        """Remember `text` about `clip`; it replaces what was remembered of the same kind about the same clip."""
        place = (video_id, clip.start_s, clip.end_s, kind)
        with self._lock, self._db:
            self._db.execute("DELETE FROM notes WHERE video_id=? AND start_s=? AND end_s=? AND kind=?", place)
            insert = "INSERT INTO notes (video_id, start_s, end_s, kind, text) VALUES (?,?,?,?,?)"
            self._db.execute(insert, (*place, text))

    def add_all(self, video_id: str, kind: Kind, texts: Iterable[tuple[Clip, str]]) -> None:
        """Remember many texts at once, none of which is known yet: nothing is replaced."""
        insert = "INSERT INTO notes (video_id, start_s, end_s, kind, text) VALUES (?,?,?,?,?)"
        with self._lock, self._db:
            self._db.executemany(insert, [(video_id, clip.start_s, clip.end_s, kind, text) for clip, text in texts])

    def search(
        self,
        video_id: str,
        query: str,
        k: int,
        *,
        every_word: bool = False,
        kind: Kind | None = None,
        within: tuple[float, float] | None = None,
    ) -> list[TextHit]:
        """The k best texts about a video, best first: those with any word of `query`, or with every word.

        Args:
            kind: only texts of this kind.
            within: only texts about something between these seconds.
        """
        # Words are quoted, so that nothing in a query that a model wrote is taken for FTS5's own syntax.
        words = [f'"{w}"' for w in re.findall(r"\w+", query)]
        if not words:
            return []
        match = (" AND " if every_word else " OR ").join(words)
        found = self._select("notes MATCH ? AND ", [match], video_id, kind, within, "bm25(notes), start_s", k)
        return [_hit(video_id, row) for row in found]

    def listing(
        self, video_id: str, k: int, *, kind: Kind | None = None, within: tuple[float, float] | None = None
    ) -> list[TextHit]:
        """The first k texts about a video in order of time; their score is 0."""
        return [_hit(video_id, row) for row in self._select("", [], video_id, kind, within, "start_s, end_s", k)]

    def count(self, video_id: str, kind: Kind) -> int:
        with self._lock:
            where = "SELECT COUNT(*) FROM notes WHERE video_id = ? AND kind = ?"
            return int(self._db.execute(where, (video_id, kind)).fetchone()[0])

    def _select(
        self,
        match: str,
        values: list[object],
        video_id: str,
        kind: Kind | None,
        within: tuple[float, float] | None,
        order: str,
        k: int,
    ) -> list[tuple[float, float, str, str, float]]:
        score = "-bm25(notes)" if match else "0.0"
        where = "video_id = ?"
        values = [*values, video_id]
        if kind is not None:
            where += " AND kind = ?"
            values.append(kind)
        if within is not None:
            where += " AND start_s < ? AND end_s > ?"
            values += [within[1], within[0]]
        select = f"SELECT start_s, end_s, kind, text, {score} FROM notes WHERE {match}{where} ORDER BY {order} LIMIT ?"
        with self._lock:
            return self._db.execute(select, [*values, k]).fetchall()

    def close(self) -> None:
        with self._lock:
            self._db.close()


def _hit(video_id: str, row: tuple[float, float, str, str, float]) -> TextHit:
    start_s, end_s, kind, text, score = row
    clip = Clip(video_id=video_id, start_s=start_s, end_s=end_s)
    return TextHit(clip=clip, kind=kind, text=text, score=score)

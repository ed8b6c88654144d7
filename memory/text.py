"""TextMemory: what is known of a video in words (captions; later subtitles and notes), found by its words.

One SQLite FTS5 table for all videos, in a file or in memory. Words are stemmed (porter), so "stars" finds "star". A
note about the same clip of the same kind replaces the older one. Safe from several threads; several processes may share
a file.
"""

from __future__ import annotations

import re
import sqlite3
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

    def search(self, video_id: str, query: str, k: int, *, every_word: bool = False) -> list[TextHit]:
        """The k best texts about a video, best first: those with any word of `query`, or with every word."""
        # Words are quoted, so that nothing in a query that a model wrote is taken for FTS5's own syntax.
        words = [f'"{w}"' for w in re.findall(r"\w+", query)]
        if not words:
            return []
        match = (" AND " if every_word else " OR ").join(words)
        with self._lock:
            rows = self._db.execute(
                "SELECT start_s, end_s, kind, text, -bm25(notes) FROM notes "
                "WHERE notes MATCH ? AND video_id = ? ORDER BY bm25(notes), start_s LIMIT ?",
                (match, video_id, k),
            ).fetchall()
        return [
            TextHit(clip=Clip(video_id=video_id, start_s=a, end_s=b), kind=kind, text=text, score=score)
            for a, b, kind, text, score in rows
        ]

    def close(self) -> None:
        with self._lock:
            self._db.close()

"""Desk: all that an agent has at hand of one video, and the shelf that keeps the desks of videos lately asked about.

Opening a video hashes the file; building its index embeds every second. Both are done once per video, however many
episodes run on it at the same time, and the index only when a tool first needs it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..core.frames import FrameStore
from ..core.video import Video

if TYPE_CHECKING:
    from ..memory.encoder import Encoder
    from ..memory.index import ClipIndex

Progress = Callable[[float], None]


class LazyIndex:
    """A `ClipIndex` that is built when it is first asked for anything. Safe from several threads."""

    def __init__(self, build: Callable[[Progress | None], ClipIndex]) -> None:
        self._build = build
        self._lock = threading.Lock()
        self._index: ClipIndex | None = None

    def ready(self, progress: Progress | None = None) -> ClipIndex:
        """The index, built now if it was not yet."""
        with self._lock:
            if self._index is None:
                self._index = self._build(progress)
            return self._index

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ready(), name)


@dataclass(frozen=True, slots=True)
class Desk:
    video: Video
    store: FrameStore
    lazy_index: LazyIndex

    @property
    def index(self) -> ClipIndex:
        """To be used like the index it stands for."""
        return cast("ClipIndex", self.lazy_index)


class Shelf:
    """Desks by file. A file that changed (time or size) is opened anew. Safe from several threads.

    Args:
        store: where frames go.
        load_encoder: gives the encoder of clip indexes, called when the first index is built.
        root: where indexes are kept on disk.
        report: gets a line when something on disk had to be rebuilt.
    """

    def __init__(
        self,
        store: FrameStore,
        load_encoder: Callable[[], Encoder],
        root: Path,
        report: Callable[[str], None],
        *,
        size: int = 8,
        decoder: str = "pyav",
    ) -> None:
        self._store, self._load, self._root, self._report = store, load_encoder, root, report
        self._size, self._decoder = size, decoder
        self._encoder: Encoder | None = None
        self._lock, self._encoder_lock = threading.Lock(), threading.Lock()
        self._desks: OrderedDict[tuple[str, int, int], Desk] = OrderedDict()

    def keep(self, videos: int) -> None:
        """Keep the desks of at least so many videos at hand."""
        self._size = max(self._size, videos)

    def desk(self, path: str | Path) -> Desk:
        """Raises: VideoError: the file cannot be read."""
        path = Path(path).expanduser()
        try:
            stat = path.stat()
            key = (str(path.absolute()), stat.st_mtime_ns, stat.st_size)
        except OSError:
            key = (str(path), 0, 0)  # `Video.open` says what is wrong with it
        with self._lock:
            if key not in self._desks:
                video = Video.open(path, decoder=self._decoder)
                self._desks[key] = Desk(video, self._store, LazyIndex(lambda progress: self._index(video, progress)))
            self._desks.move_to_end(key)
            while len(self._desks) > self._size:
                self._desks.popitem(last=False)
            return self._desks[key]

    def _index(self, video: Video, progress: Progress | None) -> ClipIndex:
        from ..memory.index import ClipIndex

        with self._encoder_lock:
            if self._encoder is None:
                self._encoder = self._load()
        return ClipIndex.build(video, self._encoder, root=self._root, progress=progress, report=self._report)

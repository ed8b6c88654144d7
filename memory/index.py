"""ClipIndex: where in a video is what was asked for? One second, one vector; a search is an inner product.

Frames at a steady rate are embedded (`memory.embed`) into a flat FAISS index. A search walks the frames best first and
answers with clips, in one of two modes:

- "windows": the hit of a frame is the window (12 s, starting at multiples of 2 s, cut at the end of the video) whose
  centre lies nearest to it. A frame less than half a window away from one already chosen is skipped (temporal
  non-maximum suppression), so k hits are k moments;
- "shots": the hit is the shot that holds the frame, long shots split; one hit per shot.

An index is saved under the content of the video, the fingerprint of the encoder and its parameters, is checked when
loaded, and building it can be interrupted, resumed and done twice at once. The only module that knows `faiss`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import faiss
import numpy as np

from ..core.errors import IndexingError
from ..core.nouns import Clip
from ..core.video import Video
from .embed import embed_video
from .encoder import Encoder
from .shots import shot_bounds


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexParams:
    """How a video is cut and sampled; seconds, and frames per second.

    Raises:
        ValueError: a value that is not above zero, or an unknown mode.
    """

    fps: float = 1.0
    window_s: float = 12.0
    stride_s: float = 2.0
    mode: Literal["windows", "shots"] = "windows"

    def __post_init__(self) -> None:
        for name in ("fps", "window_s", "stride_s"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"index {name} must be a number above 0; got {value}")
        if self.mode not in ("windows", "shots"):
            raise ValueError(f"index mode must be 'windows' or 'shots'; got {self.mode!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """A clip that matches, how well (cosine, in [-1, 1]), and the time of the frame in it that matches best."""

    clip: Clip
    score: float
    best_s: float


class ClipIndex:
    """The searchable memory of one video. Make it with `build`."""

    def __init__(
        self,
        video: Video,
        encoder: Encoder,
        params: IndexParams,
        times_s: np.ndarray,
        vectors: np.ndarray,
        bounds_s: np.ndarray,
    ):
        """Args: times_s (N,) rising; vectors (N, D) float32 unit norm; bounds_s (M+1,) bounds of shots (or empty)."""
        self.video, self.encoder, self.params = video, encoder, params
        self.times_s = times_s
        self._bounds_s = bounds_s
        self._faiss = faiss.IndexFlatIP(vectors.shape[1])
        self._faiss.add(np.ascontiguousarray(vectors, np.float32))

    @classmethod
    def build(
        cls,
        video: Video,
        encoder: Encoder,
        params: IndexParams | None = None,
        *,
        root: Path | None = None,
        progress: Callable[[float], None] | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> ClipIndex:
        """Load the index of `video` from `root`, or build it there (in memory only when `root` is None).

        Args:
            progress: called with the share done, in [0, 1].
            report: called with a line when something was wrong with what lay on disk.

        Raises:
            IndexingError: the video gave no frame at all.
            VideoError: it cannot be read.
        """
        params = params or IndexParams()
        tell = progress or (lambda share: None)
        shots = params.mode == "shots"
        # Finding shots decodes every frame, embedding one a second: a bar that gave all to the latter would stand still.
        part = 0.5 if shots else 1.0
        times_s, vectors = embed_video(
            video, encoder, params.fps, root=root, progress=lambda share: tell(part * share), report=report
        )
        if len(times_s) == 0:
            raise IndexingError(f"{video.path}: no frame could be decoded, nothing to index")
        bounds_s = np.empty(0)
        if shots:
            bounds_s = shot_bounds(
                video, params.window_s, root=root, report=report, progress=lambda share: tell(0.5 + 0.5 * share)
            )
            tell(1.0)
        return cls(video, encoder, params, times_s, vectors, bounds_s)

    def __len__(self) -> int:
        """Frames in the index."""
        return len(self.times_s)

    def search(self, query: str | np.ndarray, k: int, within: Clip | None = None) -> list[Hit]:
        """The k best moments for a text or an image, best first; fewer when the video has no more.

        Args:
            query: a text, or an image (H, W, 3) uint8 RGB.
            within: only frames of this clip count, and hits are cut to it.

        Raises:
            ValueError: an image of another shape or type, or k below 1.
        """
        if k < 1:
            raise ValueError(f"search wants k of at least 1; got {k}")
        hits: list[Hit] = []
        for t, score in self._ranked(self._embed(query), within):
            if len(hits) == k:
                break
            clip = self.clip_at(t)
            if within is not None:
                clip = clip.clamp(within.start_s, within.end_s)
            if not any(self._same(hit, t, clip) for hit in hits):
                hits.append(Hit(clip=clip, score=score, best_s=t))
        return hits

    def clip_at(self, t_s: float) -> Clip:
        """The clip that answers with the moment `t_s`: its window or its shot."""
        duration_s = self.video.readable_s
        if self.params.mode == "shots":
            i = int(np.searchsorted(self._bounds_s, t_s, side="right")) - 1
            i = min(max(i, 0), len(self._bounds_s) - 2)
            return self._clip(float(self._bounds_s[i]), float(self._bounds_s[i + 1]))
        window_s, stride_s = self.params.window_s, self.params.stride_s
        nearest = math.floor((t_s - window_s / 2) / stride_s + 0.5)
        # The last window starts at a stride too, and is cut: otherwise the last second would lie in no window.
        last = math.ceil(max(0.0, duration_s - window_s) / stride_s - 1e-6)
        start_s = min(max(nearest, 0), last) * stride_s
        return self._clip(start_s, min(start_s + window_s, duration_s))

    def moment_gap_s(self) -> float:
        """Best frames closer than this are one moment."""
        return self.params.window_s / 2

    def _same(self, hit: Hit, t_s: float, clip: Clip) -> bool:
        if self.params.mode == "shots":
            return hit.clip == clip
        return abs(hit.best_s - t_s) < self.moment_gap_s()

    def _clip(self, start_s: float, end_s: float) -> Clip:
        return Clip(video_id=self.video.id, start_s=start_s, end_s=max(start_s, end_s))

    def _embed(self, query: str | np.ndarray) -> np.ndarray:
        if isinstance(query, str):
            return self.encoder.encode_text([query])
        if query.ndim != 3 or query.shape[2] != 3 or query.dtype != np.uint8:
            raise ValueError(f"an image to search for is (H, W, 3) uint8; got {query.shape} {query.dtype}")
        return self.encoder.encode_images([query])

    def _ranked(self, vector: np.ndarray, within: Clip | None) -> list[tuple[float, float]]:
        """(time, score) of every frame that counts, best first; ties in order of time."""
        lo, hi = 0, len(self.times_s)
        if within is not None:
            lo, hi = (int(i) for i in np.searchsorted(self.times_s, [within.start_s, within.end_s]))
        if lo >= hi:
            return []
        only = faiss.SearchParameters(sel=faiss.IDSelectorRange(lo, hi))  # pyright: ignore[reportCallIssue]  (SWIG)
        scores, rows = self._faiss.search(np.ascontiguousarray(vector, np.float32), hi - lo, params=only)
        order = np.lexsort((rows[0], -scores[0]))
        return [(float(self.times_s[rows[0][i]]), float(scores[0][i])) for i in order]

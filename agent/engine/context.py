"""The context of a request as the engine needs it: which tokens show which frame, where everything stands, and what
identifies each token."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import ModelError
from ...core.nouns import Frame

if TYPE_CHECKING:
    from ..families.contract import ModelFamily
    from ..renderers.chat import ChatRenderer


def placeholder_runs(
    ids: Sequence[int] | np.ndarray, frames: Sequence[Frame], renderer: ChatRenderer
) -> list[tuple[int, int]]:
    """(start, end) of each frame in `ids`, from its first placeholder to its last.

    Raises: ModelError: placeholders and frames disagree in number or length.
    """
    at = np.flatnonzero(np.asarray(ids) == renderer.image_token_id)
    counts = [renderer.frame_tokens(f) for f in frames]
    ends = np.cumsum(counts, dtype=np.int64)
    fits = sum(counts) == len(at)
    runs = [(int(at[e - n]), int(at[e - 1]) + 1) for n, e in zip(counts, ends, strict=True)] if fits else []
    if not fits or [b - a for a, b in runs] != [renderer.frame_span(f) for f in frames]:
        raise ModelError(f"{len(at)} image placeholders do not fit the request's {len(frames)} frames")
    return runs


class Context:
    """Tokens and frames of a request, T tokens long, not counting what is sampled.

    Attributes:
        ids_T: int64.
        positions_AT: int64; the token after the last stands at `next_position` on every axis.
        keys_T: int64, equal where token and pixels are equal: the token itself, or for a placeholder 62 bits of its
            frame's hash and size plus its place in the frame (negative, so never a token).
    """

    def __init__(
        self, ids: Sequence[int], frames: Sequence[Frame], renderer: ChatRenderer, family: ModelFamily
    ) -> None:
        self.frames = tuple(frames)
        self.ids_T = np.array(ids, dtype=np.int64)
        runs = placeholder_runs(self.ids_T, frames, renderer)
        self.positions_AT = family.positions(len(ids), runs, frames)
        self.next_position = int(self.positions_AT.max(initial=-1)) + 1
        self._at = np.flatnonzero(self.ids_T == renderer.image_token_id)
        self._bounds = [0, *np.cumsum([renderer.frame_tokens(f) for f in frames], dtype=np.int64).tolist()]
        self.keys_T = self.ids_T.copy()
        for i, frame in enumerate(frames):
            where = self._at[self._bounds[i] : self._bounds[i + 1]]
            self.keys_T[where] = -1 - (_content(frame) + np.arange(len(where), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ids_T)

    def shown(self, begin: int, end: int) -> list[tuple[int, int, int]]:
        """(frame, first, last + 1 of its features) of every frame with placeholders among tokens [begin, end)."""
        if not len(self._at) or begin > self._at[-1]:
            return []
        low, high = np.searchsorted(self._at, [begin, end]).tolist()
        bounds = self._bounds
        return [
            (i, max(low, bounds[i]) - bounds[i], min(high, bounds[i + 1]) - bounds[i])
            for i in range(len(self.frames))
            if bounds[i] < high and bounds[i + 1] > low
        ]


def _content(frame: Frame) -> int:
    text = f"{frame.sha256} {frame.width} {frame.height}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 2

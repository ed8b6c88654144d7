"""The context of a request as the engine needs it: which tokens show which frame, where everything stands, and what
identifies each token."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
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
    return _runs(np.flatnonzero(np.asarray(ids) == renderer.image_token_id), frames, renderer)[0]


def _runs(
    at: np.ndarray, frames: Sequence[Frame], renderer: ChatRenderer
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """(`placeholder_runs`, how many placeholders each frame has), `at` being where the placeholders are."""
    # Tokens follow from size, and a conversation shows a hundred frames of one or two sizes.
    sizes = {(f.width, f.height): f for f in frames}
    said = {size: (renderer.frame_tokens(f), renderer.frame_span(f)) for size, f in sizes.items()}
    counts_F, spans_F = np.array([said[f.width, f.height] for f in frames], dtype=np.int64).reshape(-1, 2).T
    ends_F = counts_F.cumsum()
    fits = counts_F.sum() == len(at)
    starts, stops = (at[ends_F - counts_F], at[ends_F - 1] + 1) if fits else (ends_F, ends_F)
    if not fits or (stops - starts != spans_F).any():
        raise ModelError(f"{len(at)} image placeholders do not fit the request's {len(frames)} frames")
    return list(zip(starts.tolist(), stops.tolist(), strict=True)), counts_F


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
        self.ids, self.frames = tuple(ids), tuple(frames)
        self.ids_T = np.array(ids, dtype=np.int64)
        self._at = np.flatnonzero(self.ids_T == renderer.image_token_id)
        runs, counts_F = _runs(self._at, frames, renderer)
        self.positions_AT = family.positions(len(ids), runs, frames)
        self.next_position = int(self.positions_AT.max(initial=-1)) + 1
        ends_F = counts_F.cumsum()
        self._bounds = [0, *ends_F.tolist()]
        self.keys_T = self.ids_T.copy()
        # Its place in its frame: how many placeholders there were before, less those of earlier frames.
        first_F = np.array([_content(f.sha256, f.width, f.height) for f in frames], dtype=np.int64) - (ends_F - counts_F)
        self.keys_T[self._at] = -1 - (np.repeat(first_F, counts_F) + np.arange(len(self._at)))

    def extended(
        self, ids: tuple[int, ...], frames: tuple[Frame, ...], renderer: ChatRenderer, family: ModelFamily
    ) -> Context:
        """The context of (ids, frames). Where it goes on from this one, as a conversation's next turn does, only what is new
        is worked out: positions and keys depend on what stands before them by a count alone."""
        n, shown = len(self.ids), len(self.frames)
        if ids[:n] != self.ids or frames[:shown] != self.frames:
            return Context(ids, frames, renderer, family)
        new = Context(ids[n:], frames[shown:], renderer, family)
        new.ids, new.frames = ids, frames
        new.ids_T = np.concatenate((self.ids_T, new.ids_T))
        new.keys_T = np.concatenate((self.keys_T, new.keys_T))
        new.positions_AT = np.concatenate((self.positions_AT, new.positions_AT + self.next_position), axis=1)
        new.next_position += self.next_position
        new._at = np.concatenate((self._at, new._at + n))
        new._bounds = self._bounds + [self._bounds[-1] + b for b in new._bounds[1:]]
        return new

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


@lru_cache(maxsize=4096)
def _content(sha256: str, width: int, height: int) -> int:
    text = f"{sha256} {width} {height}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 2

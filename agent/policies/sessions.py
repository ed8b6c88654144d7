"""Sessions: the attention cache of a trajectory, kept between its turns.

A session knows which tokens and frames its cache was computed from. `Session.resume` keeps the part that a new context
shares with it, never cutting through an image, and drops the rest, so a session is always either right or empty. All
sessions together stay within a number of bytes: the one unused for longest goes first and is computed again if it returns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer in a buffer that doubles, instead of one that is copied whole for every token."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer: torch.Tensor | None = None  # (2, B, H, capacity, D)
        self._length = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, H, n, D) new keys and values in; (B, H, length, D) views of all out."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        needed = self._length + key_states.shape[-2]
        if self._buffer is None or needed > self._buffer.shape[-2]:
            self._grow(key_states, max(256, needed * 5 // 4))
        assert self._buffer is not None
        self._buffer[0, :, :, self._length : needed] = key_states
        self._buffer[1, :, :, self._length : needed] = value_states
        return self._view(needed)

    def keep(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        if self._buffer is not None and length < self._length:
            self._view(length)

    @property
    def nbytes(self) -> int:
        return 0 if self._buffer is None else self._buffer.nbytes

    def _grow(self, like: torch.Tensor, capacity: int) -> None:
        batch, heads, _, width = like.shape
        grown = like.new_empty(2, batch, heads, capacity, width)
        if self._buffer is not None:
            grown[..., : self._length, :] = self._buffer[..., : self._length, :]
        self._buffer = grown

    def _view(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        assert self._buffer is not None
        self._length = length
        self.keys, self.values = self._buffer[0, :, :, :length], self._buffer[1, :, :, :length]
        return self.keys, self.values


class Session:
    """The cache of one trajectory. `token_ids` and `frames` (hashes, in order) are what the cache holds."""

    def __init__(self, layers: int) -> None:
        self._layers = [GrowingLayer() for _ in range(layers)]
        self.cache = DynamicCache()
        self.cache.layers = list[Any](self._layers)
        self.token_ids: list[int] = []
        self.frames: list[str] = []

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self._layers)

    def resume(self, token_ids: Sequence[int], frames: Sequence[str], runs: Sequence[tuple[int, int]]) -> int:
        """Make the cache a prefix of the new context; returns how many tokens it then holds.

        Args:
            token_ids: the whole new context. At least its last token stays uncached, so that there is a next logit.
            frames: hashes of its frames, in order.
            runs: (start, end) of each frame's placeholders in `token_ids`.
        """
        shared = 0
        for mine, new in zip(self.token_ids, token_ids[:-1], strict=False):
            if mine != new:
                break
            shared += 1
        for i, (start, end) in enumerate(runs):
            same = i < len(self.frames) and self.frames[i] == frames[i]
            if start < shared and (not same or end > shared):
                shared = start
                break
        self.keep(shared, sum(end <= shared for _, end in runs))
        return shared

    def keep(self, length: int, frames: int) -> None:
        for layer in self._layers:
            layer.keep(length)
        del self.token_ids[length:]
        del self.frames[frames:]


class Sessions:
    """Sessions by name, within `max_bytes` together. Not safe for several threads: its owner holds a lock."""

    def __init__(self, layers: int, max_bytes: int) -> None:
        self.layers = layers
        self.max_bytes = max_bytes
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def nbytes(self) -> int:
        return sum(s.nbytes for s in self._sessions.values())

    def get(self, name: str) -> Session:
        """The session called `name`, new where there is none, now the last used."""
        session = self._sessions.setdefault(name, Session(self.layers))
        self._sessions.move_to_end(name)
        return session

    def drop(self, name: str) -> None:
        self._sessions.pop(name, None)

    def trim(self) -> None:
        """Drop sessions, longest unused first, until the rest fits; the last used one may have to go too."""
        while self._sessions and self.nbytes > self.max_bytes:
            self._sessions.popitem(last=False)

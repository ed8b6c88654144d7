"""Shown: which frame was shown when this was asked before? So a frame is decoded once, however many episodes look at it.

The key is all that decides the pixels: the video's content, the decoder, the time asked, the size, the box cut out. What
is kept is a reference (`Frame`); its pixels live in the store, and what the store no longer has is decoded again.

Several threads may ask for the same frame at once (the rollouts of a group look at the same moments): the first decodes,
the others wait for it, with a limit, and help themselves when it fails.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future

from .nouns import Frame

ENTRIES = 1 << 15
WAIT_S = 30.0
"""So long one thread waits for another's decoding; then it decodes itself."""


class Shown:
    """Frames by what was asked for. Safe to use from several threads.

    Args:
        holds: whether the store still has the pixels of a frame.
        entries: the most that is remembered; what was asked for longest ago goes first.
    """

    def __init__(self, holds: Callable[[Frame], bool], entries: int = ENTRIES) -> None:
        self._holds, self._entries = holds, entries
        self._known: OrderedDict[Hashable, Frame] = OrderedDict()
        self._under_way: dict[Hashable, Future[Frame]] = {}
        self._lock = threading.Lock()
        self.made = 0
        """Frames that had to be decoded so far."""

    def frames(self, asked: Sequence[Hashable], make: Callable[[list[int]], list[Frame]]) -> list[Frame]:
        """The frame of every key, in order.

        Args:
            asked: keys; one may stand there twice.
            make: decodes the frames of the keys at these places of `asked`, in order, and puts them into the store.

        Raises: what `make` raises.
        """
        with self._lock:
            known = {key: self._known[key] for key in asked if key in self._known}
        # Looking into the store may touch the disk, so it is done outside the lock.
        found = {key: frame for key, frame in known.items() if self._holds(frame)}
        mine: dict[Hashable, int] = {}
        others: dict[Hashable, Future[Frame]] = {}
        with self._lock:
            for i, key in enumerate(asked):
                if key in found or key in mine:
                    continue
                if key in self._under_way:
                    others[key] = self._under_way[key]
                else:
                    self._under_way[key], mine[key] = Future(), i
        self._decode(mine, make, found)
        for key, future in others.items():
            try:
                found[key] = future.result(WAIT_S)
            except Exception:  # the other's trouble: it may not be ours
                (found[key],) = make([asked.index(key)])
        self._keep(found)
        return [found[key] for key in asked]

    def clear(self) -> None:
        """Forget all: what is asked for next is decoded again."""
        with self._lock:
            self._known.clear()

    def _decode(
        self, mine: dict[Hashable, int], make: Callable[[list[int]], list[Frame]], found: dict[Hashable, Frame]
    ) -> None:
        """What nobody else is decoding; whoever waits for it hears how it went."""
        if not mine:
            return
        try:
            made = make(list(mine.values()))
            assert len(made) == len(mine), "a frame for every key"
        except BaseException as error:
            for future in self._taken(mine):
                future.set_exception(error)
            raise
        self.made += len(made)
        found.update(zip(mine, made, strict=True))
        self._keep(found)
        for future, frame in zip(self._taken(mine), made, strict=True):
            future.set_result(frame)

    def _taken(self, keys: dict[Hashable, int]) -> list[Future[Frame]]:
        with self._lock:
            return [self._under_way.pop(key) for key in keys]

    def _keep(self, found: dict[Hashable, Frame]) -> None:
        with self._lock:
            for key, frame in found.items():
                self._known[key] = frame
                self._known.move_to_end(key)
            while len(self._known) > self._entries:
                self._known.popitem(last=False)

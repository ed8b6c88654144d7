"""Vision features by content: a frame goes through the vision tower once, however many turns, samples, branches and
questions show it, for as long as its features fit into the budget.

The key is what the tower sees: the frame's pixel hash and its size. Features of frames that are dropped are computed again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from ...core.nouns import Frame
from ..families.contract import VISION_BATCH, FrameFeatures

FrameKey = tuple[str, int, int]


def frame_key(frame: Frame) -> FrameKey:
    return frame.sha256, frame.width, frame.height


class VisionCache:
    """Features of the frames lately used, within `max_bytes`.

    Args:
        encode: runs the tower on frames; features in the same order.
    """

    def __init__(self, encode: Callable[[Sequence[Frame]], Sequence[FrameFeatures]], max_bytes: int) -> None:
        self._encode = encode
        self._max_bytes = max_bytes
        self._held: OrderedDict[FrameKey, FrameFeatures] = OrderedDict()
        self.nbytes = 0
        self.encoded = 0
        """Frames that went through the tower so far."""

    def __len__(self) -> int:
        return len(self._held)

    def get(self, frames: Sequence[Frame]) -> dict[FrameKey, FrameFeatures]:
        """Features of all `frames`; those not held are encoded.

        Raises: whatever reading the pixels or the tower raises; nothing is kept of that batch then.
        """
        wanted = {frame_key(f): f for f in frames}
        found: dict[FrameKey, FrameFeatures] = {}
        missing: list[Frame] = []
        for key, frame in wanted.items():
            if key in self._held:
                self._held.move_to_end(key)
                found[key] = self._held[key]
            else:
                missing.append(frame)
        for i in range(0, len(missing), VISION_BATCH):
            batch = missing[i : i + VISION_BATCH]
            for frame, features in zip(batch, self._encode(batch), strict=True):
                # A clone: a slice of the tower's output would keep its whole batch in memory.
                found[frame_key(frame)] = self._keep(frame_key(frame), features.clone())
            self.encoded += len(batch)
        self._trim()
        return found

    def clear(self) -> None:
        self._held.clear()
        self.nbytes = 0

    def _keep(self, key: FrameKey, features: FrameFeatures) -> FrameFeatures:
        self._held[key] = features
        self.nbytes += features.nbytes
        return features

    def _trim(self) -> None:
        while self._held and self.nbytes > self._max_bytes:
            self.nbytes -= self._held.popitem(last=False)[1].nbytes

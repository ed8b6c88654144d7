"""Vision features by content: a frame goes through the vision tower once, however many turns, samples, branches and
questions show it, for as long as its features fit into the budget.

The key is what the tower sees: the frame's pixel hash and its size. Features of frames that are dropped are computed again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...core.nouns import Frame
from ..families.contract import VISION_BATCH, FrameFeatures

FrameKey = tuple[str, int, int]


def frame_key(frame: Frame) -> FrameKey:
    return frame.sha256, frame.width, frame.height


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Frames that went through the tower together. Their features are slices of one output, so they are kept and dropped as
    one: a copy of each would cost a fifth of all that the engine does in a turn."""

    keys: tuple[FrameKey, ...]
    nbytes: int


class VisionCache:
    """Features of the frames lately used, within `max_bytes`.

    Args:
        encode: runs the tower on frames; features in the same order.
    """

    def __init__(self, encode: Callable[[Sequence[Frame]], Sequence[FrameFeatures]], max_bytes: int) -> None:
        self._encode = encode
        self._max_bytes = max_bytes
        self._held: dict[FrameKey, tuple[FrameFeatures, Block]] = {}
        self._blocks: OrderedDict[Block, None] = OrderedDict()
        """Longest unused first; a block is used when any of its frames is."""
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
                found[key], block = self._held[key]
                self._blocks.move_to_end(block)
            else:
                missing.append(frame)
        for i in range(0, len(missing), VISION_BATCH):
            batch = missing[i : i + VISION_BATCH]
            features = dict(zip(map(frame_key, batch), self._encode(batch), strict=True))
            block = Block(tuple(features), sum(f.nbytes for f in features.values()))
            self._held |= {key: (f, block) for key, f in features.items()}
            self._blocks[block] = None
            self.nbytes += block.nbytes
            self.encoded += len(batch)
            found |= features
        self._trim()
        return found

    def clear(self) -> None:
        self._held.clear()
        self._blocks.clear()
        self.nbytes = 0

    def _trim(self) -> None:
        while self._blocks and self.nbytes > self._max_bytes:
            block, _ = self._blocks.popitem(last=False)
            self.nbytes -= block.nbytes
            for key in block.keys:
                del self._held[key]

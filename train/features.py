"""Features of a vision tower that is not trained: computed once per frame, then read instead of pixels.

They take the place of `pixel_values` in a model's forward (`mm_encoder_outputs`), which is the same forward from there on.
A frame is known by its content, so episodes that look at the same second share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.utils.generic import ModelOutput

from ..agent.families import family_of
from ..agent.families.contract import VISION_BATCH, FrameFeatures
from ..agent.renderers.chat import PixelSource
from ..core.nouns import Frame


class VisionFeatures:
    """Features by frame, of a model whose vision tower stands still.

    Args:
        model: where it is now is where frames are encoded; features are kept on the CPU.
        limit_bytes: what is kept; when it is full, further frames are computed whenever they are asked for.
    """

    def __init__(self, model: Any, renderer: Any, limit_bytes: int = 4 << 30) -> None:
        self._family = family_of(model, renderer)
        self._limit, self._bytes = limit_bytes, 0
        self._kept: dict[tuple[str, int, int], FrameFeatures] = {}

    def inputs(self, frames: Sequence[Frame], store: PixelSource) -> dict[str, Any]:
        """What `model(**inputs)` takes for these frames, in order."""
        found = self._features(frames, store)
        layers = len(found[0].deepstack)
        image = ModelOutput(pooler_output=[f.image_ND for f in found])
        # Qwen3-VL reads them even where its tower has none.
        image["deepstack_features"] = [[f.deepstack[layer] for f in found] for layer in range(layers)]
        return {"mm_encoder_outputs": {"image": image}}

    @torch.no_grad()
    def _features(self, frames: Sequence[Frame], store: PixelSource) -> list[FrameFeatures]:
        new = {_key(f): f for f in frames if _key(f) not in self._kept}
        fresh: dict[tuple[str, int, int], FrameFeatures] = {}
        todo = list(new.values())
        for i in range(0, len(todo), VISION_BATCH):
            batch = todo[i : i + VISION_BATCH]
            for frame, features in zip(batch, self._family.encode(batch, store), strict=True):
                fresh[_key(frame)] = _on_cpu(features)
        for key, features in fresh.items():
            if self._bytes + features.nbytes <= self._limit:
                self._kept[key] = features
                self._bytes += features.nbytes
        return [self._kept.get(_key(f)) or fresh[_key(f)] for f in frames]


def _key(frame: Frame) -> tuple[str, int, int]:
    return frame.sha256, frame.width, frame.height


def _on_cpu(features: FrameFeatures) -> FrameFeatures:
    image = features.image_ND.to("cpu", copy=True)
    return FrameFeatures(image, tuple(d.to("cpu", copy=True) for d in features.deepstack))

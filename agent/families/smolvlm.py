"""SmolVLM2: a SigLIP tower with pixel shuffle before a Llama-like model with ordinary positions.

A frame is one image or several tiles of the same size; its features are those of its tiles, one after another, in the order
of its placeholders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.nouns import Frame
from ..renderers.chat import PixelSource
from .contract import Adapter, FrameFeatures


class SmolVLM(Adapter):
    """`SmolVLMForConditionalGeneration`."""

    axes = 1

    def positions(self, length: int, runs: Sequence[tuple[int, int]], frames: Sequence[Frame]) -> np.ndarray:
        return np.arange(length, dtype=np.int64)[None]

    def encode(self, frames: Sequence[Frame], store: PixelSource) -> list[FrameFeatures]:
        tiles = self.renderer.pixel_inputs(frames, store).to(self.device)
        # The model takes (batch, images, 3, S, S), and drops all-zero images as padding: an image is never zero
        # everywhere, because its mean and standard deviation put no whole grey level at 0.
        (features_SD,) = self.model.model.get_image_features(tiles[None], return_dict=True).pooler_output
        return [FrameFeatures(f) for f in features_SD.split([self.renderer.frame_tokens(f) for f in frames])]

    @property
    def language(self) -> Any:
        return self.model.model.text_model

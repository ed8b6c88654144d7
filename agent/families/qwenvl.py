"""Qwen3-VL and Qwen2.5-VL: M-RoPE positions; Qwen3-VL adds deepstack, image features that join the first layers.

Positions are given, never left to the model: `rope_deltas` is state that transformers keeps on the module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...core.nouns import Frame
from ..renderers.chat import PixelSource
from .contract import Adapter, FrameFeatures


class Qwen25VL(Adapter):
    """`Qwen2_5_VLForConditionalGeneration`."""

    axes = 3

    def __init__(self, model: Any, renderer: Any) -> None:
        super().__init__(model, renderer)
        self._merge = int(model.config.vision_config.spatial_merge_size)

    def positions(self, length: int, runs: Sequence[tuple[int, int]], frames: Sequence[Frame]) -> np.ndarray:
        return rope_positions(length, runs, self.renderer.image_grids(frames), self._merge)

    def encode(self, frames: Sequence[Frame], store: PixelSource) -> list[FrameFeatures]:
        pixels, grids = self.renderer.pixel_inputs(frames, store)
        out = self.model.model.get_image_features(pixels.to(self.device), grids.to(self.device), return_dict=True)
        layers = getattr(out, "deepstack_features", None) or ()  # one tuple over frames per layer
        return [FrameFeatures(image, tuple(d[i] for d in layers)) for i, image in enumerate(out.pooler_output)]

    @property
    def language(self) -> Any:
        return self.model.model.language_model


class Qwen3VL(Qwen25VL):
    """`Qwen3VLForConditionalGeneration`."""

    def visual(self, mask_BN: torch.Tensor | None, deepstack: Sequence[torch.Tensor]) -> dict[str, Any]:
        has_images = mask_BN is not None and len(deepstack) > 0
        return {"visual_pos_masks": mask_BN, "deepstack_visual_embeds": list(deepstack) if has_images else None}


def rope_positions(
    length: int, runs: Sequence[tuple[int, int]], grids: Sequence[tuple[int, int, int]], merge: int
) -> np.ndarray:
    """M-RoPE positions (3, length) int64: text counts on; a frame of R x C merged tokens has one time, its rows and
    columns, and moves the count by max(R, C). Same as the models' `get_rope_index` for one row of images."""
    positions = np.empty((3, length), dtype=np.int64)
    at = current = 0
    for (start, end), (_, rows, columns) in zip(runs, grids, strict=True):
        positions[:, at:start] = np.arange(current, current + start - at)
        current += start - at
        r, c = rows // merge, columns // merge
        positions[0, start:end] = current
        positions[1, start:end] = current + np.repeat(np.arange(r), c)
        positions[2, start:end] = current + np.tile(np.arange(c), r)
        current += max(r, c)
        at = end
    positions[:, at:] = np.arange(current, current + length - at)
    return positions

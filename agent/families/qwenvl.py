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
        sizes = {(f.width, f.height): f for f in frames}  # a hundred frames, one or two sizes
        grids = dict(zip(sizes, self.renderer.image_grids(list(sizes.values())), strict=True))
        return rope_positions(length, runs, [grids[f.width, f.height] for f in frames], self._merge)

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
    if not runs:
        return np.arange(length, dtype=np.int64)[None].repeat(3, 0)
    # No loop over frames: a long conversation has a hundred, and every turn comes through here.
    starts, ends = np.array(runs, dtype=np.int64).T
    rows_F, columns_F = np.array(grids, dtype=np.int64).T[1:] // merge
    sizes_F = ends - starts
    within = np.arange(sizes_F.sum()) - np.repeat(sizes_F.cumsum() - sizes_F, sizes_F)
    shown = np.repeat(starts, sizes_F) + within
    step_T = np.ones(length, dtype=np.int64)
    step_T[shown] = 0
    step_T[ends - 1] = np.maximum(rows_F, columns_F)
    positions = (step_T.cumsum() - step_T)[None].repeat(3, 0)
    width = np.repeat(columns_F, sizes_F)
    positions[1, shown] += within // width
    positions[2, shown] += within % width
    return positions

"""Qwen3-VL conversations as tokens.

A frame is written as Qwen3-VL writes the frames of a video, `<12.0 seconds><|vision_start|><|image_pad|>...<|vision_end|>`
(`Qwen3VLProcessor.replace_video_token`; the form it was trained on), but as an image: one timestamp, one grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.nouns import Frame
from .chat import ChatRenderer, PixelSource
from .parsing import parse

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["IMAGE_PAD", "NEVER_SAMPLED", "PixelSource", "Qwen3VLRenderer", "parse"]

IMAGE_PAD = "<|image_pad|>"
NEVER_SAMPLED = (IMAGE_PAD, "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|im_start|>")


class Qwen3VLRenderer(ChatRenderer):
    """The `Renderer` of Qwen3-VL checkpoints, with a `Qwen3VLProcessor`."""

    image_token = IMAGE_PAD
    never_sampled = NEVER_SAMPLED
    turn_ends = ("<|im_end|>", "<|endoftext|>")

    def __init__(self, processor: Any) -> None:
        super().__init__(processor)
        self._patches = lru_cache(maxsize=256)(self._count_patches)

    def stamp(self, t_s: float) -> str:
        return f"<{t_s:.1f} seconds>"

    def frame_text(self, frame: Frame) -> str:
        return IMAGE_PAD * self.frame_tokens(frame)

    def frame_tokens(self, frame: Frame) -> int:
        return self._patches(frame.height, frame.width) // self.processor.image_processor.merge_size**2

    # Pixels.

    def pixel_inputs(self, frames: Sequence[Frame], store: PixelSource) -> tuple[Tensor, Tensor]:
        """`pixel_values` (sum of patches, channels * temporal_patch * patch^2) float32 and `image_grid_thw` (F, 3) int64
        of at least one frame, by the checkpoint's own image processor."""
        images = [np.array(store.pixels(f)) for f in frames]  # copies: the store's own arrays are read-only
        out = self.processor.image_processor(images=images, return_tensors="pt", input_data_format="channels_last")
        return out["pixel_values"], out["image_grid_thw"]

    def image_grids(self, frames: Sequence[Frame]) -> list[tuple[int, int, int]]:
        """`image_grid_thw` of frames without touching their pixels: (1, rows, columns) in patches."""
        return [self._grid(f.height, f.width) for f in frames]

    def _grid(self, height: int, width: int) -> tuple[int, int, int]:
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        p = self.processor.image_processor
        rows, columns = smart_resize(
            height, width, p.patch_size * p.merge_size, p.size["shortest_edge"], p.size["longest_edge"]
        )
        return 1, rows // p.patch_size, columns // p.patch_size

    def _count_patches(self, height: int, width: int) -> int:
        # Before transformers 5.11 the last argument has no default.
        return int(self.processor.image_processor.get_number_of_image_patches(height, width, {}))

"""SmolVLM2 conversations as tokens.

A frame is written as SmolVLM2 writes the frames of a video (`SmolVLMProcessor.replace_video_token`; the form it was
trained on): `\\nFrame from 12:30:` (minutes and seconds, rounded down), then one global image. With `split=True` a frame
is read like a photo instead: large images are cut into tiles, each with its row and column, then the global image.

Its turns are `User: ...<end_of_utterance>\\nAssistant:`, so a completion opens with a space. Its published template knows no
tools; see `preamble.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.nouns import Frame
from .chat import ChatRenderer, PixelSource

if TYPE_CHECKING:
    from torch import Tensor

_TILE_MARK = re.compile(r"<row_\d+_col_\d+>")


class SmolVLMRenderer(ChatRenderer):
    """The `Renderer` of SmolVLM2 checkpoints.

    Args:
        processor: a `SmolVLMProcessor`.
        split: cut frames into tiles; costs up to 17 times the tokens.
    """

    image_token = "<image>"
    never_sampled = ("<image>", "<fake_token_around_image>", "<global-img>", "<video>", "<|im_start|>")
    turn_ends = ("<end_of_utterance>", "<|im_end|>", "<|endoftext|>")

    def __init__(self, processor: Any, *, split: bool = False) -> None:
        super().__init__(processor)
        self.split = split
        self._block = lru_cache(maxsize=256)(self._block_of)
        self._span = lru_cache(maxsize=256)(self._span_of)

    @cached_property
    def suppressed_token_ids(self) -> tuple[int, ...]:
        added = self.tokenizer.get_added_vocab()
        marks = (i for t, i in added.items() if _TILE_MARK.fullmatch(t))
        return (*(added[t] for t in self.never_sampled if t in added), *marks)

    def stamp(self, t_s: float) -> str:
        return f"\nFrame from {int(t_s // 60):02d}:{int(t_s % 60):02d}:"

    def frame_text(self, frame: Frame) -> str:
        return self._block(*self.tile_grid(frame))

    def frame_tokens(self, frame: Frame) -> int:
        return self.tiles(frame) * self.processor.image_seq_len

    def frame_span(self, frame: Frame) -> int:
        return self._span(*self.tile_grid(frame))

    def tiles(self, frame: Frame) -> int:
        """Images that the vision tower sees of a frame; the last one is the whole frame."""
        rows, columns = self.tile_grid(frame)
        return rows * columns + 1

    def tile_grid(self, frame: Frame) -> tuple[int, int]:
        """(rows, columns) of tiles, (0, 0) where the frame is not cut. The sizes are those of the image processor's
        `resize`, then `resize_for_vision_encoder`; its own `get_number_of_image_patches` rounds differently."""
        if not self.split:
            return 0, 0
        import torch
        from transformers.models.smolvlm.image_processing_smolvlm import get_resize_output_image_size

        p = self.processor.image_processor
        shape = torch.empty(frame.height, frame.width, device="meta")
        height, width = get_resize_output_image_size(shape, p.size["longest_edge"])
        tile = p.max_image_size["longest_edge"]
        aspect = width / height
        if width >= height:
            width = math.ceil(width / tile) * tile
            height = math.ceil(int(width / aspect) / tile) * tile
        else:
            height = math.ceil(height / tile) * tile
            width = math.ceil(int(height * aspect) / tile) * tile
        return (height // tile, width // tile) if max(height, width) > tile else (0, 0)

    def pixel_inputs(self, frames: Sequence[Frame], store: PixelSource) -> Tensor:
        """Tiles (sum of tiles, 3, S, S) float32 of at least one frame, by the checkpoint's own image processor.

        An uncut frame is first brought to the size of a tile, as a video's frame is (`video_sampling.video_size` of the
        published checkpoints; `video_processor.size` is the images' size there, which costs time and changes little).
        """
        import torch

        images = [[np.array(store.pixels(f))] for f in frames]  # copies: the store's own arrays are read-only
        how: dict[str, Any] = {"do_image_splitting": self.split, "do_pad": True}
        if not self.split:
            how["size"] = dict(self.processor.image_processor.max_image_size)
        out = self.processor.image_processor(images=images, return_tensors="pt", input_data_format="channels_last", **how)
        # (F, most tiles, 3, S, S), padded at the end for frames of fewer tiles.
        return torch.cat([own[: self.tiles(f)] for f, own in zip(frames, out["pixel_values"], strict=True)])

    def _block_of(self, rows: int, columns: int) -> str:
        from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

        p = self.processor
        return get_image_prompt_string(
            rows,
            columns,
            p.image_seq_len,
            fake_token_around_image=p.fake_image_token,
            image_token=self.image_token,
            global_image_token=p.global_image_token,
        )

    def _span_of(self, rows: int, columns: int) -> int:
        ids = np.asarray(self.encode(self._block(rows, columns)))
        at = np.flatnonzero(ids == self.image_token_id)
        return int(at[-1] - at[0]) + 1


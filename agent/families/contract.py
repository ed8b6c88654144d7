"""What differs between families in a forward pass, behind one small protocol.

Shapes: B rows, N new tokens, A axes of a position (3 for M-RoPE, 1 otherwise), S placeholder tokens, D hidden size, V
vocabulary. `hidden` takes batches; a caller who pads gives `attention_mask`, and positions that know of the padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ...core.nouns import Frame
from ..renderers.chat import PixelSource

VISION_BATCH = 32
"""Frames that go through a vision tower at once, at most."""


@dataclass(frozen=True, slots=True)
class FrameFeatures:
    """What the vision tower says of one frame: `image_ND`, and one (N, D) per deepstack layer."""

    image_ND: torch.Tensor
    deepstack: tuple[torch.Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        return self.image_ND.nbytes + sum(d.nbytes for d in self.deepstack)


class ModelFamily(Protocol):
    """A loaded model and its renderer. Stateless: the caller holds caches and locks."""

    model: Any
    device: torch.device
    """Where inputs go and logits come from."""
    layers: int
    axes: int

    def positions(self, length: int, runs: Sequence[tuple[int, int]], frames: Sequence[Frame]) -> np.ndarray:
        """(A, length) int64 of a whole context, `runs` being the (start, end) of each frame's placeholders.
        The token after it stands at `positions.max() + 1`, on every axis."""
        ...

    def encode(self, frames: Sequence[Frame], store: PixelSource) -> list[FrameFeatures]:
        """The vision tower, at most `VISION_BATCH` frames (at least one) at once."""
        ...

    def hidden(
        self,
        ids_BN: torch.Tensor,
        positions_ABN: torch.Tensor,
        cache: Any,
        image_SD: torch.Tensor | None = None,
        deepstack: Sequence[torch.Tensor] = (),
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, N, D) last hidden states of new tokens; their keys and values are appended to `cache`.
        `image_SD` holds the features for all placeholders in `ids_BN`, row by row; None where there are none."""
        ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., V) float32 on `device`, from (..., D)."""
        ...


class Adapter:
    """What all adapters do alike; a family gives the rest."""

    axes: int

    def __init__(self, model: Any, renderer: Any) -> None:
        self.model, self.renderer = model, renderer
        self.device = main_device(model)
        self.layers = int(model.config.text_config.num_hidden_layers)

    def embed(self, ids_BN: torch.Tensor, image_SD: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(embeddings (B, N, D) with the images in place, mask (B, N) of placeholders or None)."""
        embeds = self.model.get_input_embeddings()(ids_BN)
        if image_SD is None:
            return embeds, None
        mask_BN = (ids_BN == self.renderer.image_token_id).to(embeds.device)
        return embeds.masked_scatter(mask_BN.unsqueeze(-1), image_SD.to(embeds.device, embeds.dtype)), mask_BN

    @property
    def language(self) -> Any:
        """The language model, which takes embeddings."""
        raise NotImplementedError

    def visual(self, mask_BN: torch.Tensor | None, deepstack: Sequence[torch.Tensor]) -> dict[str, Any]:
        """What else a forward pass is told of the placeholders."""
        return {}

    def hidden(
        self,
        ids_BN: torch.Tensor,
        positions_ABN: torch.Tensor,
        cache: Any,
        image_SD: torch.Tensor | None = None,
        deepstack: Sequence[torch.Tensor] = (),
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        embeds, mask_BN = self.embed(ids_BN, image_SD)
        return self.language(
            inputs_embeds=embeds,
            position_ids=positions_ABN if self.axes > 1 else positions_ABN[0],
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=True,
            **self.visual(mask_BN, deepstack),
        ).last_hidden_state

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.model.lm_head(hidden).float().to(self.device)


def main_device(model: Any) -> torch.device:
    """Where the inputs of a model go that may be spread over devices (accelerate's rule: the first that is not a store)."""
    spread = getattr(model, "hf_device_map", None)
    if spread:
        return torch.device(next((d for d in spread.values() if d not in ("cpu", "disk")), "cpu"))
    return next(model.parameters()).device

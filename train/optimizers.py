"""Muon for the matrices of a model's layers and AdamW for the rest, as one optimiser: trainers know only one.

The learning rates of the two are those of their parameter groups, so a schedule scales both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .muon import Muon


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon on the 2-d weights of layers, AdamW on embeddings, heads, norms and biases; frozen parameters are left out.

    Args:
        lr: of Muon. adam_lr: of AdamW.
    """

    def __init__(self, model: nn.Module, lr: float, adam_lr: float) -> None:
        matrices, rest = [], []
        for name, p in model.named_parameters():
            if p.requires_grad:
                (matrices if p.ndim == 2 and ".layers." in name else rest).append(p)
        muon = Muon(matrices, lr, dtype=torch.bfloat16)
        adam = torch.optim.AdamW(rest, adam_lr, betas=(0.9, 0.98), weight_decay=0.0)
        self._parts: tuple[torch.optim.Optimizer, ...] = (muon, adam)
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """The parts work on this optimiser's own groups and state, which is what a trainer reads, changes and saves."""
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of both."""
        for part in self._parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

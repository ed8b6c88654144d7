"""Muon: momentum whose update is made orthogonal by Newton-Schulz iterations, on whatever device.

Source: K. Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the factor 0.2 sqrt(max side)
of J. Liu et al. 2025, "Muon is scalable for LLM training", gives updates the size of AdamW's, so one learning rate does
for both. PyTorch's own Muon always iterates in bf16, which many CPUs are slow at; here that is a choice, and matrices
of one shape are batched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrices with singular values near 1, for a batch (N, rows, columns)."""
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + torch.baddbmm(-4.7750 * gram, gram, gram, alpha=2.0315) @ x
    return x if matrices.shape[1] <= matrices.shape[2] else x.mT


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay for 2-d parameters.

    A parameter with three times as many rows as columns (a joint query, key and value matrix) is taken as three.
    `dtype` is that of the iterations only; weights and momentum stay as they are.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(momentum, group["momentum"])
                parts = 3 if p.shape[0] == 3 * p.shape[1] else 1
                for weight, delta in zip(p.chunk(parts), update.chunk(parts), strict=True):
                    by_shape[tuple(weight.shape)].append((weight, delta))  # type: ignore[index]
            for shape, pairs in by_shape.items():
                updates = orthogonalise(torch.stack([delta for _, delta in pairs]).to(self.dtype))
                for (weight, _), update in zip(pairs, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update.to(weight.dtype), alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)

"""What few sequences of a batch see, laid side by side while the batch decodes on: one kernel for all of it.

Sixteen agents about one video share its prompt, which is read together (`attention.py`); but each has its own question and its
own last words in a node of its own. Attended node by node, these short pieces cost more in calls than in arithmetic.
So for the time of a `Steady` they are copied into one buffer per layer, all ending at the same column: every new token of
the batch is written by one copy, and all rows attend at once, what is missing on the left being masked. At the end the new
tokens go to the nodes. Long pieces stay where they are: nothing is gained on them.

The buffers count as cache memory, and where there is no room for them, decoding goes node by node.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .attention import Piece, Plan, masked_attention
from .cache import PrefixTree

MOST = 512
"""Tokens that a piece has, times the sequences that see it, for it to be copied to each of them."""


class Tails:
    """Of the B single-token segments of `plan`, which attends to the rest of their paths from now on.

    Args:
        steps: so many new tokens of each can follow.
    """

    def __init__(self, plan: Plan, tree: PrefixTree, own: list[list[Piece]], shared: list[Piece], steps: int) -> None:
        self._nodes = [s.node for s in plan.segments]
        lengths = [sum(p.end - p.begin for p in pieces) for pieces in own]
        self._first = self._at = max(lengths)
        width = self._first + steps
        self.nbytes = tree.token_bytes * len(own) * width
        self._layers: list[torch.Tensor] = []
        for layer, shape in enumerate(tree.shapes):
            # Zeros, for what is masked is still multiplied, by 0.
            both = torch.zeros(2, len(own), shape.heads, width, shape.width, dtype=shape.dtype, device=shape.device)
            for row, pieces in enumerate(own):
                at = self._first - lengths[row]
                for p in pieces:
                    both[:, row, :, at : at + p.end - p.begin] = p.node.layers[layer][:, :, p.begin : p.end]
                    at += p.end - p.begin
            self._layers.append(both)
        self._mask: torch.Tensor | None = None
        if min(lengths) < self._first:
            columns = torch.arange(width)
            missing = columns < self._first - torch.tensor(lengths).unsqueeze(1)
            shape = tree.shapes[0]
            mask_BT = torch.zeros(len(own), width, dtype=shape.dtype).masked_fill_(missing, float("-inf"))
            self._mask = mask_BT[:, None, None].to(shape.device)
        plan.set_apart(self, shared)

    @classmethod
    def of(cls, plan: Plan, tree: PrefixTree, steps: int) -> Tails | None:
        """None where they would save nothing, or where there is no memory for them."""
        own: list[list[Piece]] = [[] for _ in plan.segments]
        shared: list[Piece] = []
        for piece in plan.pieces:
            end = min(piece.end, piece.node.length)  # without the new token, which goes here
            if end == piece.begin:
                continue
            kept = Piece(piece.node, piece.begin, end, piece.rows, piece.where)
            if len(piece.rows) * (end - piece.begin) > MOST:
                shared.append(kept)
            else:
                for row in piece.rows:
                    own[row].append(kept)
        width = max(sum(p.end - p.begin for p in pieces) for pieces in own) + steps
        fits = tree.nbytes + tree.token_bytes * len(own) * width <= tree.max_bytes
        return cls(plan, tree, own, shared, steps) if len(own) > 1 and fits else None

    def attend(
        self, layer: int, q_HBD: torch.Tensor, k_GBD: torch.Tensor, v_GBD: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the new keys and values in, and let each row attend over its own: (H, B, D) and log-sum-exps (H, B)."""
        both, at = self._layers[layer], self._at
        both[0, :, :, at] = k_GBD.transpose(0, 1)
        both[1, :, :, at] = v_GBD.transpose(0, 1)
        heads, rows, width = q_HBD.shape
        groups = k_GBD.shape[0]
        q_BGRD = q_HBD.view(groups, heads // groups, rows, width).permute(2, 0, 1, 3)
        mask = None if self._mask is None else self._mask[..., : at + 1].to(q_HBD.device)
        keys, values = both[:, :, :, : at + 1]
        out_BGRD, lse_BGR = masked_attention(q_BGRD, keys, values, scale, mask)
        return out_BGRD.permute(1, 2, 0, 3).reshape(heads, rows, -1), lse_BGR.permute(1, 2, 0).reshape(heads, rows)

    def advance(self) -> None:
        self._at += 1

    def put_back(self, began: Sequence[int]) -> None:
        """Give the nodes, `began` tokens long at the start, what was computed since."""
        new = self._at - self._first
        for layer, both in enumerate(self._layers):
            for row, (node, length) in enumerate(zip(self._nodes, began, strict=True)):
                node.write(layer, length, both[:, row, :, self._first : self._first + new])
        self._layers.clear()

"""Attention of a packed row: the new tokens of many sequences side by side, each over its own cache, without padding.

The model runs on one row of N tokens that belong to several sequences; all it does per token does not care. Only attention
does, so inside `attending(plan)` the attention function of an `install`ed model is ours. Per layer it writes the new keys
and values into the sequences' nodes, and then attends piece by piece:

- a *past piece* is a run of one node, seen whole by all its queries. What sequences share is read once for all of them,
  as heads times queries over the same keys, which is what makes N samples of a long prompt cheap;
- a *chunk* is several new tokens of one sequence, causal among themselves.

Pieces of the same query are joined by their log-sum-exp, which is exact: softmax over a union is the weighted sum of the
softmaxes over the parts. No mask is ever built and no cache is ever copied.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ...core.errors import ModelError
from .cache import LayerShape, Node

if TYPE_CHECKING:
    from .tails import Tails

PREFIX = "playhead_"
_MATH_SCORES = 1 << 24
"""Scores that the plain kernel holds at once, at most."""


@dataclass(frozen=True, slots=True)
class Segment:
    """`tokens` new tokens of the sequence that owns `node`; they stand from `row` on in the packed row."""

    node: Node
    row: int
    tokens: int

    @property
    def rows(self) -> range:
        return range(self.row, self.row + self.tokens)


@dataclass(slots=True)
class Piece:
    """Tokens [begin, end) of `node`, as seen by `rows`; `where` is the same to index with."""

    node: Node
    begin: int
    end: int
    rows: Sequence[int]
    where: slice | torch.Tensor


class Plan:
    """What one forward pass attends to: `segments` in the order of their rows. The nodes have room for the new tokens, which
    are not counted in `length` yet."""

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        self.segments = segments
        self._device = device
        self.chunks = [s for s in segments if s.tokens > 1]
        self.pieces = list(_past_pieces(segments, device))
        self._growing = [p for p in self.pieces if p.end > p.node.length]
        self.tails: Tails | None = None
        self._set_parts([s.rows for s in self.chunks] + [p.rows for p in self.pieces])
        self.layers = 0
        self.seen: dict[int, LayerShape] | None = None

    def set_apart(self, tails: Tails, pieces: Sequence[Piece]) -> None:
        """`tails` takes the new tokens, and holds all that the segments see besides `pieces`."""
        self.tails, self.pieces, self._growing = tails, list(pieces), []
        self._set_parts([range(len(self.segments)), *(p.rows for p in self.pieces)])

    def _set_parts(self, parts: Sequence[Sequence[int]]) -> None:
        # The only part holds the only segment's rows, or those of several that stand side by side: nothing to join.
        self.joined = len(parts) > 1
        self.width = sum(s.tokens for s in self.segments)
        self.aligned = all(len(part) == self.width for part in parts)
        """Every part is of all rows, in their order."""
        if self.joined and not self.aligned:
            self.rows = torch.tensor([row for part in parts for row in part], device=self._device)

    def check(self) -> None:
        """After a pass. Raises: ModelError: the model did not attend by this plan (somebody gave it another attention
        since), so what it computed is wrong."""
        if not self.layers:
            raise ModelError("the model's attention was replaced while the engine was using it")
        self.layers = 0

    def advance(self) -> None:
        """The same segments, one token each, one token later."""
        for piece in self._growing:
            piece.end += 1
        if self.tails is not None:
            self.tails.advance()


def _past_pieces(segments: Sequence[Segment], device: torch.device) -> Iterator[Piece]:
    """The nodes on the segments' paths, cut where segments stop seeing them. A single new token sees itself as past."""
    views: dict[Node, list[tuple[int, Segment]]] = {}
    for segment in segments:
        for node, seen in segment.node.path():
            own = 1 if node is segment.node and segment.tokens == 1 else 0
            if seen + own:
                views.setdefault(node, []).append((seen + own, segment))
    for node, viewers in views.items():
        begin = 0
        for end in sorted({seen for seen, _ in viewers}):
            seers = [s.rows for seen, s in viewers if seen >= end]  # in order, as the segments are
            rows = range(seers[0].start, seers[-1].stop)
            if len(rows) == sum(map(len, seers)):
                yield Piece(node, begin, end, rows, slice(rows.start, rows.stop))
            else:
                apart = [row for some in seers for row in some]
                yield Piece(node, begin, end, apart, torch.tensor(apart, device=device))
            begin = end


_local = threading.local()


@contextmanager
def attending(plan: Plan) -> Iterator[None]:
    """In this thread, models with `install`ed attention attend by `plan`."""
    _local.plan = plan
    try:
        yield
    finally:
        _local.plan = None


def install(model: torch.nn.Module) -> None:
    """Let the language model attend by plans. Without a plan in its thread it attends as it did before, so a trainer may
    go on using it. Nothing of this is saved with the checkpoint."""
    modules: list[Any] = [m for m in model.modules() if hasattr(m, "layer_idx") and hasattr(m, "num_key_value_groups")]
    for config in {id(m.config): m.config for m in modules}.values():
        own = getattr(config, "_attn_implementation_internal", None) or "sdpa"
        if not own.startswith(PREFIX):
            AttentionInterface.register(PREFIX + own, partial(packed_attention, own))
            AttentionMaskInterface.register(PREFIX + own, partial(_mask, own))
            config._attn_implementation_internal = PREFIX + own


def _mask(own: str, *args: Any, **kwargs: Any) -> Any:
    return None if _plan() is not None else ALL_MASK_ATTENTION_FUNCTIONS[own](*args, **kwargs)


def _plan() -> Plan | None:
    return getattr(_local, "plan", None)


class NoCache:
    """Stands where transformers expects a cache: keys and values pass through, our attention stores them."""

    is_compileable = False
    layers: tuple[()] = ()

    def update(self, keys: torch.Tensor, values: torch.Tensor, *args: object, **kwargs: object) -> tuple[torch.Tensor, ...]:
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return query_length, 0


def packed_attention(
    own: str,
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: (1, heads, N, width) in, (1, N, heads, width) out."""
    plan = _plan()
    if plan is None:
        # Eager attention is not in the table; sdpa takes its masks and gives the same.
        attention = ALL_ATTENTION_FUNCTIONS.get(own) or sdpa_attention_forward
        return attention(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    plan.layers += 1
    if kwargs.get("sliding_window") or kwargs.get("softcap"):
        raise ModelError("models with sliding windows or capped scores are not supported by the engine")
    layer = int(module.layer_idx)  # pyright: ignore[reportArgumentType]
    q_HND, k_HND, v_HND = query[0], key[0], value[0]
    if plan.seen is not None:
        plan.seen[layer] = LayerShape(k_HND.shape[0], k_HND.shape[2], k_HND.dtype, k_HND.device)
        return query.transpose(1, 2), None
    scale = q_HND.shape[-1] ** -0.5 if scaling is None else scaling
    outs: list[torch.Tensor] = []
    sums: list[torch.Tensor] = []
    if plan.tails is not None:
        out, lse = plan.tails.attend(layer, q_HND, k_HND, v_HND, scale)
        outs.append(out)
        sums.append(lse)
    else:
        both_2HND = torch.stack((k_HND, v_HND))
        for s in plan.segments:
            s.node.write(layer, s.node.length, both_2HND[:, :, s.row : s.row + s.tokens])
    for s in plan.chunks:
        rows = slice(s.row, s.row + s.tokens)
        out, lse = attend(q_HND[:, rows], k_HND[:, rows], v_HND[:, rows], scale, causal=True)
        outs.append(out)
        sums.append(lse)
    for piece in plan.pieces:
        keys_HTD, values_HTD = piece.node.layers[layer][:, :, piece.begin : piece.end]
        rows = piece.where if isinstance(piece.where, slice) else piece.where.to(q_HND.device)
        out, lse = attend(q_HND[:, rows], keys_HTD, values_HTD, scale, causal=False)
        outs.append(out)
        sums.append(lse)
    return joined(plan, outs, sums).transpose(0, 1).unsqueeze(0).contiguous(), None


def joined(plan: Plan, outs: list[torch.Tensor], sums: list[torch.Tensor]) -> torch.Tensor:
    """(H, N, D) from what each part gave: outputs (H, R, D) and log-sum-exps (H, R)."""
    if not plan.joined:
        return outs[0]
    if plan.aligned:
        weight_PHN1 = torch.stack(sums).softmax(0).unsqueeze(-1)
        return (torch.stack(outs).float() * weight_PHN1).sum(0).to(outs[0].dtype)
    return _by_rows(outs, sums, plan.rows.to(outs[0].device), plan.width)


def _by_rows(outs: list[torch.Tensor], sums: list[torch.Tensor], rows: torch.Tensor, n: int) -> torch.Tensor:
    """(H, N, D) from parts (H, R, D) with log-sum-exps (H, R), `rows` saying which row each is of."""
    out_HRD, lse_HR = torch.cat(outs, dim=1), torch.cat(sums, dim=1)
    heads = lse_HR.shape[0]
    top_HN = lse_HR.new_full((heads, n), float("-inf"))
    top_HN.scatter_reduce_(1, rows.expand(heads, -1), lse_HR, "amax")
    weight_HR = (lse_HR - top_HN[:, rows]).exp_()
    total_HN = torch.zeros_like(top_HN).index_add_(1, rows, weight_HR)
    weighted = out_HRD.float() * weight_HR.unsqueeze(-1)
    joined = weighted.new_zeros(heads, n, out_HRD.shape[2]).index_add_(1, rows, weighted)
    return joined.div_(total_HN.unsqueeze(-1)).to(out_HRD.dtype)


def attend(
    q_HRD: torch.Tensor, k_GTD: torch.Tensor, v_GTD: torch.Tensor, scale: float, *, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of R queries over T keys, and the log-sum-exp of their scores: (H, R, D), (H, R) float32.

    Query heads are a multiple of key heads. `causal` means R == T, each query seeing the keys up to its own.
    """
    heads, queries, width = q_HRD.shape
    repeat = heads // k_GTD.shape[0]
    if causal and repeat > 1:
        k_GTD, v_GTD = k_GTD.repeat_interleave(repeat, 0), v_GTD.repeat_interleave(repeat, 0)
    elif repeat > 1:
        # All queries see all keys, so the heads that share keys are just more queries.
        q_HRD = q_HRD.reshape(k_GTD.shape[0], repeat * queries, width)
    out, lse = _kernel(q_HRD.unsqueeze(0), k_GTD.unsqueeze(0), v_GTD.unsqueeze(0), scale, causal)
    return out.reshape(heads, queries, v_GTD.shape[-1]), lse.reshape(heads, queries)


def _kernel(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """torch's own fused kernels, which give the log-sum-exp that the public function keeps to itself."""
    aten = torch.ops.aten
    if q.shape[-1] == v.shape[-1]:
        if q.device.type == "cpu":
            return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
        half = q.dtype in (torch.float16, torch.bfloat16)
        if q.device.type == "cuda" and half and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256:
            out = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
            return out[0], out[1][..., : q.shape[2]]
    return _plain(q, k, v, scale, causal)


def masked_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of a batch, and its log-sum-exps: q (B, H, R, D), k and v (B, H, T, D), what `mask` (B, 1, 1, T) adds to the
    scores."""
    if q.device.type == "cpu" and q.shape[-1] == v.shape[-1]:
        attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return attention(q, k, v, 0.0, False, attn_mask=mask, scale=scale)
    scores = torch.matmul(q, k.transpose(-1, -2)).float() * scale
    if mask is not None:
        scores = scores + mask
    lse = scores.logsumexp(-1)
    return torch.matmul((scores - lse.unsqueeze(-1)).exp().to(v.dtype), v), lse


def _plain(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by matrix products, some queries at a time."""
    step = max(1, _MATH_SCORES // (q.shape[1] * k.shape[2]))
    outs, sums = [], []
    for a in range(0, q.shape[2], step):
        scores = torch.matmul(q[:, :, a : a + step], k.transpose(-1, -2)).float() * scale
        if causal:
            late = torch.arange(k.shape[2], device=q.device) > torch.arange(a, a + scores.shape[2], device=q.device)[:, None]
            scores = scores.masked_fill(late, float("-inf"))
        sums.append(scores.logsumexp(-1))
        outs.append(torch.matmul((scores - sums[-1].unsqueeze(-1)).exp().to(v.dtype), v))
    return torch.cat(outs, 2), torch.cat(sums, 2)

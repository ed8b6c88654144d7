"""From samples to what a model's forward takes, and the one forward that training and its tests share.

    rows of a batch      (B, T), padded on the right
    or packed            (1, T) samples one after another: positions begin again with each, and the model's own mask for
                         packed rows (made from the positions) lets no token see another sample

Each sample's frames go in as many image tokens as the vision tower will give features: that is checked when a sample is
made and once more here, because a model only compares the sums of a whole batch.

Shapes: B rows, T tokens, P patches (sum over all images), I images, S side of a tile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..agent.engine.context import placeholder_runs
from ..agent.families.qwenvl import rope_positions
from ..agent.renderers.chat import ChatRenderer, PixelSource
from ..agent.renderers.qwen3vl import Qwen3VLRenderer
from ..agent.renderers.smolvlm import SmolVLMRenderer
from ..core.errors import DataError, ModelError, PlayheadError
from ..core.nouns import Frame
from .samples import TrainingSample, truncate

IGNORED = -100
"""The label of a token that is not trained on, as everywhere in transformers."""
NOT_FOR_THE_MODEL = ("labels", "loss_weights")
LOGIT_ROWS = 1024
"""Rows of logits that are brought to float32 at once: a large vocabulary over a long sequence would not fit twice."""


class FeatureSource(Protocol):
    """Features of a vision tower that stands still, in the place of pixels: `train.features`."""

    def inputs(self, frames: Sequence[Frame], store: PixelSource) -> dict[str, Any]: ...


@dataclass(slots=True)
class Dropped:
    """What a collator left out because it was too long."""

    turns: int = 0


class SampleCollator:
    """Samples to model inputs, for the Qwen3-VL, Qwen2.5-VL and SmolVLM2 families.

    Args:
        renderer: of the checkpoint.
        store: where the frames' pixels are.
        max_tokens: whole turns beyond it are dropped and counted in `dropped`.
        pack: all samples in one row.
        features: takes the place of the pixels, where the vision tower is not trained.

    Raises:
        DataError: a frame whose pixels are missing, images that do not fit, or a sample whose first turn does not fit into
            `max_tokens`; the sample is named.
        ModelError: a renderer of another family.
    """

    def __init__(
        self,
        renderer: ChatRenderer,
        store: PixelSource,
        *,
        max_tokens: int | None = None,
        pack: bool = False,
        features: FeatureSource | None = None,
    ) -> None:
        if not isinstance(renderer, (Qwen3VLRenderer, SmolVLMRenderer)):
            raise ModelError(f"{type(renderer).__name__}: no collator for this model family")
        self.renderer, self.store = renderer, store
        self.max_tokens, self.pack, self.features = max_tokens, pack, features
        self.dropped = Dropped()

    def __call__(self, samples: Sequence[TrainingSample]) -> dict[str, Any]:
        """Inputs of `model(**inputs)`: input_ids (B, T) int64, attention_mask (B, T) (not when packed), position_ids,
        pixels as the family takes them; and labels (B, T) int64, -100 where not trained on, loss_weights (B, T) float32."""
        if not samples:
            raise DataError("an empty batch")
        samples = [self._fitting(s) for s in samples]
        positions = [self._positions(s) for s in samples]
        rows = self._packed(samples, positions) if self.pack else self._padded(samples, positions)
        return rows | self._images(samples)

    def _fitting(self, sample: TrainingSample) -> TrainingSample:
        if self.max_tokens is None:
            return sample
        short, dropped = truncate(sample, self.max_tokens, self.renderer, self.renderer.image_token_id)
        if short is None:
            raise DataError(f"sample {sample.id}: not even its first trained turn fits into {self.max_tokens} tokens")
        self.dropped.turns += dropped
        return short

    def _positions(self, sample: TrainingSample) -> np.ndarray:
        """(A, T) int64, A being 3 for M-RoPE and 1 otherwise, from 0."""
        try:
            runs = placeholder_runs(sample.token_ids_T, sample.frames_F, self.renderer)
        except ModelError as error:
            raise DataError(f"sample {sample.id}: {error}") from None
        length = len(sample.token_ids_T)
        if isinstance(self.renderer, SmolVLMRenderer):
            return np.arange(length, dtype=np.int64)[None]
        merge = self.renderer.processor.image_processor.merge_size
        return rope_positions(length, runs, self.renderer.image_grids(sample.frames_F), merge)

    def _padded(self, samples: Sequence[TrainingSample], positions: Sequence[np.ndarray]) -> dict[str, Any]:
        rows, longest = len(samples), max(len(s.token_ids_T) for s in samples)
        ids = np.full((rows, longest), self.renderer.pad_token_id, dtype=np.int64)
        seen = np.zeros((rows, longest), dtype=np.int64)
        labels = np.full((rows, longest), IGNORED, dtype=np.int64)
        weights = np.zeros((rows, longest), dtype=np.float32)
        # Plain positions count on through the padding: where they began again, a packed row would be seen in them.
        plain = np.arange(longest) if len(positions[0]) == 1 else np.zeros(longest)
        where = np.tile(plain.astype(np.int64), (len(positions[0]), rows, 1))
        for row, (sample, at) in enumerate(zip(samples, positions, strict=True)):
            n = len(sample.token_ids_T)
            ids[row, :n], seen[row, :n], where[:, row, :n] = sample.token_ids_T, 1, at
            labels[row, :n], weights[row, :n] = _targets(sample)
        return self._row_inputs(ids, where, labels, weights) | {"attention_mask": torch.from_numpy(seen)}

    def _packed(self, samples: Sequence[TrainingSample], positions: Sequence[np.ndarray]) -> dict[str, Any]:
        ids = np.concatenate([np.asarray(s.token_ids_T, dtype=np.int64) for s in samples])
        targets = [_targets(s) for s in samples]
        where = np.concatenate(positions, axis=1)
        if len(where) > 1:  # transformers makes the mask of a packed row from plain positions, which go first
            plain = np.concatenate([np.arange(len(s.token_ids_T), dtype=np.int64) for s in samples])
            where = np.concatenate([plain[None], where])
        labels, weights = (np.concatenate(parts) for parts in zip(*targets, strict=True))
        return self._row_inputs(ids[None], where[:, None], labels[None], weights[None])

    def _row_inputs(
        self, ids: np.ndarray, positions: np.ndarray, labels: np.ndarray, weights: np.ndarray
    ) -> dict[str, Any]:
        token_ids = torch.from_numpy(ids)
        inputs = {"input_ids": token_ids, "labels": torch.from_numpy(labels), "loss_weights": torch.from_numpy(weights)}
        inputs["position_ids"] = torch.from_numpy(positions if len(positions) > 1 else positions[0])
        if not isinstance(self.renderer, SmolVLMRenderer):
            inputs["mm_token_type_ids"] = (token_ids == self.renderer.image_token_id).int()
        return inputs

    def _images(self, samples: Sequence[TrainingSample]) -> dict[str, Any]:
        frames = [f for s in samples for f in s.frames_F]
        if not frames:
            return {}
        features = self.features
        if features is not None:
            return self._read(samples, lambda some: features.inputs(some, self.store))
        if isinstance(self.renderer, Qwen3VLRenderer):
            pixels, grids = self._read(samples, lambda some: self.renderer.pixel_inputs(some, self.store))
            self._check_grids(samples, grids)
            return {"pixel_values": pixels, "image_grid_thw": grids}
        return {"pixel_values": self._tiles(samples)}

    def _tiles(self, samples: Sequence[TrainingSample]) -> Tensor:
        """(B, I, 3, S, S), rows filled up with zero images, which the model drops; (1, I, 3, S, S) for a packed row."""
        assert isinstance(self.renderer, SmolVLMRenderer)
        tiles = self._read(samples, lambda some: self.renderer.pixel_inputs(some, self.store))
        counts = [sum(self.renderer.tiles(f) for f in s.frames_F) for s in samples]
        assert len(tiles) == sum(counts), f"{len(tiles)} tiles for {counts}"
        if self.pack:
            return tiles[None]
        rows = tiles.new_zeros((len(samples), max(counts), *tiles.shape[1:]))
        for row, own in zip(rows, tiles.split(counts), strict=True):
            row[: len(own)] = own
        return rows

    def _read(self, samples: Sequence[TrainingSample], read: Any) -> Any:
        """`read` of all frames; where that fails, the error names the sample."""
        try:
            return read([f for s in samples for f in s.frames_F])
        except PlayheadError as error:
            for sample in samples:
                for frame in sample.frames_F:
                    try:
                        self.store.pixels(frame)
                    except PlayheadError as missing:
                        raise DataError(f"sample {sample.id}: {missing}") from None
            raise DataError(f"samples {', '.join(s.id for s in samples)}: {error}") from None

    def _check_grids(self, samples: Sequence[TrainingSample], grids: Tensor) -> None:
        merge = self.renderer.processor.image_processor.merge_size
        given = (grids.prod(-1) // merge**2).split([len(s.frames_F) for s in samples])
        for sample, features in zip(samples, given, strict=True):
            placeholders = sample.token_ids_T.count(self.renderer.image_token_id)
            if int(features.sum()) != placeholders:
                raise DataError(f"sample {sample.id}: {int(features.sum())} image features for {placeholders} placeholders")


def _targets(sample: TrainingSample) -> tuple[np.ndarray, np.ndarray]:
    """(labels, loss weights) of a sample. Its first token has nothing before it, so it is no target."""
    mask = np.asarray(sample.loss_mask_T, dtype=bool)
    mask[0] = False
    labels = np.where(mask, np.asarray(sample.token_ids_T, dtype=np.int64), IGNORED)
    weights = np.asarray(sample.weights_T or 1.0, dtype=np.float32) * mask
    return labels, weights.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model says of the tokens of its input; 0 and False where nobody asked, and for the first token of a row."""

    logprobs_BT: Tensor
    """float32, nats."""
    likeliest_BT: Tensor
    """bool: no other token was likelier."""


def sequence_logprobs(
    model: Any, inputs: Mapping[str, Any], temperature: float = 1.0, *, where: Tensor | None = None
) -> Tensor:
    """(B, T) float32: the log-probability (nats) of each token given those before it in its row, 0 for the first; over the
    whole vocabulary, of logits divided by `temperature`, as the engine records them. See `score`."""
    return score(model, inputs, temperature, where=where).logprobs_BT


def score(
    model: Any, inputs: Mapping[str, Any], temperature: float = 1.0, *, where: Tensor | None = None
) -> Scores:
    """The forward pass of training: log-probabilities of the tokens of `inputs`.

    Args:
        model: a model of one of the families, or a wrapper (PEFT, DDP, FSDP) whose forward is the model's.
        inputs: what a `SampleCollator` gave, on the model's device; labels and weights are not looked at.
        where: (B, T) bool; only these are computed. The head then works on the columns that some row needs.

    In a packed row, the first token of a later sample is not conditioned on anything of its own sample; its value is no
    log-probability of anything, and labels leave it out.
    """
    given = {k: v for k, v in inputs.items() if k not in NOT_FOR_THE_MODEL}
    if "position_ids" in given:
        # Padding stands on the right and attention is causal, so no token sees it: without a mask, kernels are faster.
        given.pop("attention_mask", None)
    ids_BT = given["input_ids"]
    targets_N = torch.arange(1, ids_BT.shape[1], device=ids_BT.device)
    if where is not None:
        targets_N = targets_N[where[:, 1:].any(0)]
    logits_BNV = model(**given, use_cache=False, logits_to_keep=targets_N - 1).logits
    ids_BN = ids_BT[:, targets_N]
    logprobs_BN, likeliest_BN = _chosen(logits_BNV.flatten(0, 1), ids_BN.flatten(), temperature)
    logprobs = logprobs_BN.new_zeros(ids_BT.shape).index_copy(1, targets_N, logprobs_BN.view(ids_BN.shape))
    likeliest = likeliest_BN.new_zeros(ids_BT.shape).index_copy(1, targets_N, likeliest_BN.view(ids_BN.shape))
    if where is None:
        return Scores(logprobs, likeliest)
    return Scores(logprobs * where, likeliest & where)


def _chosen(logits_NV: Tensor, ids_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(log-softmax of the chosen tokens (N,) float32, whether each is the likeliest (N,)), a slice of rows at a time."""
    logprobs, likeliest = [logits_NV.new_zeros(0, dtype=torch.float32)], [ids_N.new_zeros(0, dtype=torch.bool)]
    for rows, chosen in zip(logits_NV.split(LOGIT_ROWS), ids_N.split(LOGIT_ROWS), strict=True):
        if len(chosen):
            logprobs.append(-torch.nn.functional.cross_entropy(rows.float() / temperature, chosen, reduction="none"))
            likeliest.append(rows.detach().argmax(-1) == chosen)
    return torch.cat(logprobs), torch.cat(likeliest)

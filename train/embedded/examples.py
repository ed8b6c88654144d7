"""Examples: what the supervised trainer eats, whatever it came from: tokens, mask, and the features of each image token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...agent.renderers.qwen3vl import Qwen3VLRenderer
from ...core.frames import FrameStore
from ...core.nouns import Frame
from ...core.trajectory import read_trajectories
from ..samples import TrainingSample, sample_of
from .dream import Dream

VISION_BATCH = 64
HELD_OUT_EVERY = 19
"""So many trajectories, of which one is kept for measuring. A prime: sets hold their kinds in turn, seven or ten of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """T tokens, F frames, N image tokens of width D."""

    kind: str
    token_ids_T: tuple[int, ...]
    loss_mask_T: tuple[int, ...]
    frames_F: tuple[Frame, ...]
    features_ND: Tensor


def dream_example(dream: Dream, noise: float, rng: np.random.Generator) -> Example:
    """A dream with its codes as features (each code on all four tokens of its frame), noise added."""
    codes = dream.codes_F + noise * rng.standard_normal(dream.codes_F.shape, dtype=np.float32)
    return Example(
        kind=dream.kind,
        token_ids_T=dream.token_ids_T,
        loss_mask_T=dream.loss_mask_T,
        frames_F=dream.frames_F,
        features_ND=torch.from_numpy(codes).repeat_interleave(4, 0),
    )


def recorded_examples(
    folder: Path, model: Any, renderer: Qwen3VLRenderer
) -> tuple[list[Example], list[Example]]:
    """(to train on, held out) from `folder/trajectories.jsonl` and the frame store `folder/frames`.

    Raises:
        DataError: a bad trajectory, by name; or a frame that the store lacks.
    """
    store = FrameStore(folder / "frames")
    samples = [
        sample_of(t, renderer, renderer.image_token_id) for t in read_trajectories(folder / "trajectories.jsonl")
    ]
    features = frame_features({f.sha256: f for s in samples for f in s.frames_F}, store, model, renderer)
    examples = [_recorded(s, features) for s in samples]
    held_out = examples[::HELD_OUT_EVERY]
    return [e for i, e in enumerate(examples) if i % HELD_OUT_EVERY], held_out


def _recorded(sample: TrainingSample, features: dict[str, Tensor]) -> Example:
    return Example(
        kind=sample.kind,
        token_ids_T=sample.token_ids_T,
        loss_mask_T=sample.loss_mask_T,
        frames_F=sample.frames_F,
        features_ND=torch.cat([features[f.sha256] for f in sample.frames_F]),
    )


@torch.no_grad()
def frame_features(
    frames: dict[str, Frame], store: FrameStore, model: Any, renderer: Qwen3VLRenderer
) -> dict[str, Tensor]:
    """The vision tower's (N, D) features of every frame, by content hash; on the CPU, wherever the model is."""
    done: dict[str, Tensor] = {}
    todo: Sequence[Frame] = list(frames.values())
    for i in range(0, len(todo), VISION_BATCH):
        batch = todo[i : i + VISION_BATCH]
        pixels, grids = renderer.pixel_inputs(batch, store)
        pixels, grids = pixels.to(model.device), grids.to(model.device)
        pooled = model.model.get_image_features(pixels, grids, return_dict=True).pooler_output
        done.update({f.sha256: p.to("cpu", copy=True) for f, p in zip(batch, pooled, strict=True)})
    return done

"""A checkpoint of any of the families as a policy, run in this process with transformers.

`engine/` does the work: it gathers the requests of all agents into ragged batches, and computes nothing twice that it still
holds: neither the shared beginning of two contexts nor a frame. Logits equal those of a full recompute to float noise.

The forward pass is the checkpoint's own: vision tower, scatter into the embeddings, language model; `families/` holds what
differs between families.

Log-probs are of the raw logits over the whole vocabulary divided by the temperature (1 when greedy), as a trainer
computes them; placeholder tokens are only kept from being sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.nouns import Completion
from ...core.policy import GenerateRequest
from ..engine.context import placeholder_runs
from ..engine.scheduler import Engine
from ..families import family_of
from ..families.qwenvl import rope_positions
from ..renderers.chat import ChatRenderer, PixelSource
from .loading import LoadOptions, load_checkpoint
from .room import cache_limits

__all__ = ["TransformersPolicy", "placeholder_runs", "rope_positions"]


class TransformersPolicy:
    """A `Policy` over a loaded model of one of the families.

    Args:
        model, renderer: the checkpoint; see `load`.
        store: where the pixels of requested frames are.
        name: how trajectories call this model.
        limits: `cache_bytes`, `vision_bytes`, `max_batch`, `prefill_tokens` of the `Engine`.
    """

    exact = True

    def __init__(
        self,
        model: Any,
        renderer: ChatRenderer,
        store: PixelSource,
        *,
        name: str = "",
        **limits: int,
    ) -> None:
        self.model = model.eval()
        self.name = name or str(model.config.model_type)
        self.renderer = renderer
        self.store = store
        self.family = family_of(model, renderer)
        self.device = self.family.device
        self.engine = Engine(self.family, renderer, store, **limits)

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        store: PixelSource,
        *,
        device: str | None = None,
        name: str = "",
        options: LoadOptions | None = None,
        **limits: int,
    ) -> TransformersPolicy:
        """Load a folder or a hub id; `options` says how (`loading.py`), and what caches may take unless `limits` do.

        Raises: ModelError: not there, of no family that we know, damaged, incomplete, too large, or an option that this
            machine or checkpoint cannot do.
        """
        options = options or LoadOptions()
        model, renderer = load_checkpoint(str(checkpoint), device, options)
        name = name or str(checkpoint)
        if options.adapter is not None:
            name += f"+{options.adapter}"
        if not limits.keys() & {"cache_bytes", "vision_bytes"}:
            limits |= cache_limits(model, options.cache_gb)
        return cls(model, renderer, store, name=name, **limits)

    @property
    def version(self) -> int:
        """Of the weights; completions carry it."""
        return self.engine.version

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """One completion per request, in order. A request that fails gives a completion with `FinishReason.ERROR`."""
        return await self.engine.generate(requests)

    def weights_changed(self, *, vision: bool = True) -> None:
        """Forget everything computed with the old weights; completions carry a new `policy_version`.

        Args:
            vision: the vision tower changed too; else the features of frames are kept.
        """
        self.engine.weights_changed(vision=vision)

    def forget(self, session: str) -> None:
        """The trajectory is over: its cache is the first to go when room is needed."""
        self.engine.forget(session)

"""A checkpoint of any of the families as a policy, run in this process with transformers.

Between the turns of a session only new tokens and new frames are computed: the attention cache stays (`sessions.py`),
and so do the vision features of every frame lately seen (by hash, so a frame shown twice is encoded once). Logits equal
those of a full recompute to float noise; a test holds that over several turns with new frames.

The forward pass is the checkpoint's own: vision tower, scatter into the embeddings, language model; `families/` holds what
differs between families. Positions are given explicitly. Requests run one after another under a lock, off the event
loop's thread.

Log-probs are of the raw logits over the whole vocabulary divided by the temperature (1 when greedy), as a trainer
computes them; placeholder tokens are only kept from being sampled.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.errors import ModelError
from ...core.nouns import Completion, FinishReason, Frame
from ...core.policy import GenerateRequest, Sampling
from ..families import family_of
from ..families.contract import VISION_BATCH, FrameFeatures
from ..families.qwenvl import rope_positions
from ..renderers.chat import ChatRenderer, PixelSource
from .loading import LoadOptions, load_checkpoint
from .sessions import Session, Sessions

__all__ = ["FrameFeatures", "TransformersPolicy", "placeholder_runs", "rope_positions", "sample"]

PREFILL_CHUNK = 1024


class TransformersPolicy:
    """A `Policy` over a loaded model of one of the families.

    Args:
        model, renderer: the checkpoint; see `load`.
        store: where the pixels of requested frames are.
        name: how trajectories call this model.
        cache_bytes: bound for the attention caches of all sessions together.
        vision_bytes: bound for the vision features kept.
    """

    exact = True

    def __init__(
        self,
        model: Any,
        renderer: ChatRenderer,
        store: PixelSource,
        *,
        name: str = "",
        cache_bytes: int = 1 << 30,
        vision_bytes: int = 256 << 20,
    ) -> None:
        self.model = model.eval()
        self.name = name or str(model.config.model_type)
        self.renderer = renderer
        self.store = store
        self.version = 0
        self.family = family_of(model, renderer)
        self.device = self.family.device
        self._sessions = Sessions(self.family.layers, cache_bytes)
        self._features: OrderedDict[tuple[str, int, int], FrameFeatures] = OrderedDict()
        self._vision_bytes = vision_bytes
        self._suppressed = torch.tensor(renderer.suppressed_token_ids, dtype=torch.long, device=self.device)
        self._lock = threading.Lock()

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
        """Load a folder or a hub id; `options` says how (`loading.py`).

        Raises: ModelError: not there, of no family that we know, damaged, incomplete, too large, or an option that this
            machine or checkpoint cannot do.
        """
        options = options or LoadOptions()
        model, renderer = load_checkpoint(str(checkpoint), device, options)
        name = name or str(checkpoint)
        if options.adapter is not None:
            name += f"+{options.adapter}"
        return cls(model, renderer, store, name=name, **limits)

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """One completion per request, in order. A request that fails gives a completion with `FinishReason.ERROR`."""
        return await asyncio.to_thread(lambda: [self._guarded(r) for r in requests])

    def weights_changed(self) -> None:
        """Forget everything computed with the old weights; completions carry a new `policy_version`."""
        with self._lock:
            self.version += 1
            self._sessions = Sessions(self._sessions.layers, self._sessions.max_bytes)
            self._features.clear()

    def forget(self, session: str) -> None:
        """The trajectory is over: give its cache back."""
        with self._lock:
            self._sessions.drop(session)

    def _guarded(self, request: GenerateRequest) -> Completion:
        started = time.monotonic()
        with self._lock:
            try:
                with torch.inference_mode():
                    return self._generate(request, started)
            except Exception as error:  # one bad request must not take the others with it
                self._sessions.drop(request.session)
                text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                return Completion(
                    token_ids=(), text=text, finish_reason=FinishReason.ERROR, wall_s=time.monotonic() - started
                )
            finally:
                self._sessions.trim()

    def _generate(self, request: GenerateRequest, started: float) -> Completion:
        sampling = request.sampling
        deadline = started + (float("inf") if sampling.timeout_s is None else sampling.timeout_s)
        ids = request.token_ids
        runs = placeholder_runs(ids, request.frames, self.renderer)
        positions_AL = self.family.positions(len(ids), runs, request.frames)
        session = self._sessions.get(request.session)
        hashes = [f.sha256 for f in request.frames]
        reused = session.resume(ids, hashes, runs)
        logits_V = self._prefill(session, request, positions_AL, runs, reused, deadline)
        sampled: list[int] = []
        logprobs: list[float] = []
        finish = FinishReason.TIMEOUT
        if logits_V is not None:
            generator = torch.Generator(device=self.device).manual_seed(sampling.seed)
            position = int(positions_AL.max()) + 1
            finish = self._decode(session, logits_V, position, sampling, generator, deadline, sampled, logprobs)
        return Completion(
            token_ids=tuple(sampled),
            text=self.renderer.completion_text(sampled),
            logprobs=tuple(logprobs),
            finish_reason=finish,
            policy_version=self.version,
            prefill_tokens=len(ids) - reused,
            reused_tokens=reused,
            wall_s=time.monotonic() - started,
        )

    def _prefill(
        self,
        session: Session,
        request: GenerateRequest,
        positions_AL: np.ndarray,
        runs: Sequence[tuple[int, int]],
        start: int,
        deadline: float,
    ) -> torch.Tensor | None:
        """Run the context from token `start` on; logits (V,) after its last token, or None when time ran out."""
        ids = request.token_ids
        first_frame = sum(end <= start for _, end in runs)
        features = self._vision(request.frames[first_frame:])
        image_SD = torch.cat([f.image_ND for f in features]) if features else None
        deep = [torch.cat(layers) for layers in zip(*(f.deepstack for f in features), strict=True)] if features else []
        image_id, used, logits_V = self.renderer.image_token_id, 0, None
        for begin in range(start, len(ids), PREFILL_CHUNK):
            if time.monotonic() > deadline:
                return None
            chunk = ids[begin : begin + PREFILL_CHUNK]
            count = sum(t == image_id for t in chunk)
            logits_V = self._forward(
                session,
                chunk,
                positions_AL[:, begin : begin + len(chunk)],
                None if image_SD is None or not count else image_SD[used : used + count],
                [d[used : used + count] for d in deep],
            )
            used += count
            end = begin + len(chunk)
            session.token_ids += chunk
            # A frame counts as held once its last placeholder is; `resume` never cuts through a run.
            held = sum(e <= end for _, e in runs)
            session.frames = [f.sha256 for f in request.frames[:held]]
        return logits_V

    def _forward(
        self,
        session: Session,
        chunk: Sequence[int],
        positions_An: np.ndarray,
        image_SD: torch.Tensor | None,
        deepstack: list[torch.Tensor],
    ) -> torch.Tensor:
        hidden = self.family.hidden(
            torch.tensor([chunk], device=self.device),
            torch.from_numpy(positions_An).to(self.device).unsqueeze(1),
            session.cache,
            image_SD,
            deepstack if image_SD is not None else (),
        )
        return self.family.logits(hidden[0, -1])

    def _decode(
        self,
        session: Session,
        logits_V: torch.Tensor,
        position: int,
        sampling: Sampling,
        generator: torch.Generator,
        deadline: float,
        sampled: list[int],
        logprobs: list[float],
    ) -> FinishReason:
        """Sample into `sampled` and `logprobs` until a stop token, the limit, or the deadline."""
        stops = self.renderer.stop_token_ids
        while len(sampled) < sampling.max_tokens:
            token, logprob = sample(logits_V, sampling, self._suppressed, generator)
            sampled.append(token)
            logprobs.append(logprob)
            if token in stops:
                return FinishReason.STOP
            if time.monotonic() > deadline:
                return FinishReason.TIMEOUT
            if len(sampled) == sampling.max_tokens:
                break
            logits_V = self._forward(session, [token], np.full((self.family.axes, 1), position, dtype=np.int64), None, [])
            session.token_ids.append(token)
            position += 1
        return FinishReason.LENGTH

    def _vision(self, frames: Sequence[Frame]) -> list[FrameFeatures]:
        """Features of the frames, in order; those not lately seen go through the vision tower."""
        known = {_key(f): self._features.get(_key(f)) for f in frames}
        missing = list({_key(f): f for f in frames if known[_key(f)] is None}.values())
        for i in range(0, len(missing), VISION_BATCH):
            batch = missing[i : i + VISION_BATCH]
            for frame, features in zip(batch, self.family.encode(batch, self.store), strict=True):
                known[_key(frame)] = features
                self._features[_key(frame)] = features.clone()
        for key in known:
            if key in self._features:
                self._features.move_to_end(key)
        total = sum(f.nbytes for f in self._features.values())
        while self._features and total > self._vision_bytes:
            total -= self._features.popitem(last=False)[1].nbytes
        return [f for frame in frames if (f := known[_key(frame)]) is not None]


def _key(frame: Frame) -> tuple[str, int, int]:
    return frame.sha256, frame.width, frame.height


def placeholder_runs(
    ids: Sequence[int], frames: Sequence[Frame], renderer: ChatRenderer
) -> list[tuple[int, int]]:
    """(start, end) of each frame in `ids`, from its first placeholder to its last.

    Raises: ModelError: placeholders and frames disagree in number or length.
    """
    at = np.flatnonzero(np.asarray(ids) == renderer.image_token_id)
    counts = [renderer.frame_tokens(f) for f in frames]
    ends = np.cumsum(counts, dtype=np.int64)
    fits = sum(counts) == len(at)
    runs = [(int(at[e - n]), int(at[e - 1]) + 1) for n, e in zip(counts, ends, strict=True)] if fits else []
    if not fits or [b - a for a, b in runs] != [renderer.frame_span(f) for f in frames]:
        raise ModelError(f"{len(at)} image placeholders do not fit the request's {len(frames)} frames")
    return runs


def sample(
    logits_V: torch.Tensor, sampling: Sampling, suppressed: torch.Tensor, generator: torch.Generator
) -> tuple[int, float]:
    """(token, its log-probability in nats) from raw logits (V,) float32."""
    greedy = sampling.temperature <= 0
    logprobs_V = torch.log_softmax(logits_V if greedy else logits_V / sampling.temperature, dim=-1)
    if not torch.isfinite(logprobs_V).any():
        raise ModelError("the model gave no finite logit")
    allowed_V = logprobs_V.index_fill(0, suppressed, float("-inf"))
    if greedy:
        token = int(allowed_V.argmax())
    else:
        probs_V = allowed_V.softmax(-1)
        if sampling.top_p < 1:
            ordered, order = probs_V.sort(descending=True)
            # Keep the smallest head whose mass reaches top_p: a token stays when the mass before it does not.
            ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0
            probs_V = torch.zeros_like(probs_V).scatter_(0, order, ordered)
        token = int(torch.multinomial(probs_V, 1, generator=generator))
    return token, float(logprobs_V[token])

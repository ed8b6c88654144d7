"""A Qwen3-VL checkpoint as a policy, run in this process with transformers.

Between the turns of a session only new tokens and new frames are computed: the attention cache stays (`sessions.py`),
and so do the vision features of every frame lately seen (by hash, so a frame shown twice is encoded once). Logits equal
those of a full recompute to float noise; a test holds that over several turns with new frames.

The forward pass is the checkpoint's own: vision tower, scatter into the embeddings, deepstack, language model. We give
explicit 3-D positions (M-RoPE as `get_rope_index` computes it), so nothing depends on `rope_deltas`, state that transformers
keeps on the module. Requests run one after another under a lock, off the event loop's thread.

Log-probs are of the raw logits over the whole vocabulary divided by the temperature (1 when greedy), as a trainer
computes them; placeholder tokens are only kept from being sampled.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.errors import ModelError
from ...core.nouns import Completion, FinishReason, Frame
from ...core.policy import GenerateRequest, Sampling
from ..renderers.qwen3vl import PixelSource, Qwen3VLRenderer
from .sessions import Session, Sessions

PREFILL_CHUNK = 1024
VISION_BATCH = 32


@dataclass(frozen=True, slots=True)
class FrameFeatures:
    """What the vision tower says of one frame: `image_ND`, and one (N, D) per deepstack layer."""

    image_ND: torch.Tensor
    deepstack: tuple[torch.Tensor, ...]

    @property
    def nbytes(self) -> int:
        return self.image_ND.nbytes + sum(d.nbytes for d in self.deepstack)


class TransformersPolicy:
    """A `Policy` over a loaded `Qwen3VLForConditionalGeneration`.

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
        renderer: Qwen3VLRenderer,
        store: PixelSource,
        *,
        name: str = "",
        cache_bytes: int = 1 << 30,
        vision_bytes: int = 256 << 20,
    ) -> None:
        self.model = model.eval()
        self.name = name or "qwen3_vl"
        self.renderer = renderer
        self.store = store
        self.version = 0
        self.device = next(model.parameters()).device
        self._merge = int(model.config.vision_config.spatial_merge_size)
        self._sessions = Sessions(model.config.text_config.num_hidden_layers, cache_bytes)
        self._features: OrderedDict[tuple[str, int, int], FrameFeatures] = OrderedDict()
        self._vision_bytes = vision_bytes
        self._suppressed = torch.tensor(renderer.suppressed_token_ids, dtype=torch.long, device=self.device)
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls, checkpoint: str | Path, store: PixelSource, *, device: str | None = None, name: str = "", **limits: int
    ) -> TransformersPolicy:
        """Load a folder or a hub id. float32 on a CPU (bf16 is many times slower there), the checkpoint's type on a GPU.

        Raises: ModelError: not there, not a Qwen3-VL checkpoint, damaged, or incomplete.
        """
        model = _load_model(str(checkpoint), device or ("cuda" if torch.cuda.is_available() else "cpu"))
        renderer = Qwen3VLRenderer.from_checkpoint(checkpoint)
        return cls(model, renderer, store, name=name or str(checkpoint), **limits)

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
        positions_3L = rope_positions(len(ids), runs, self.renderer.image_grids(request.frames), self._merge)
        session = self._sessions.get(request.session)
        hashes = [f.sha256 for f in request.frames]
        reused = session.resume(ids, hashes, runs)
        logits_V = self._prefill(session, request, positions_3L, runs, reused, deadline)
        sampled: list[int] = []
        logprobs: list[float] = []
        finish = FinishReason.TIMEOUT
        if logits_V is not None:
            generator = torch.Generator(device=self.device).manual_seed(sampling.seed)
            position = int(positions_3L.max()) + 1
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
        positions_3L: np.ndarray,
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
                positions_3L[:, begin : begin + len(chunk)],
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
        positions_3n: np.ndarray,
        image_SD: torch.Tensor | None,
        deepstack: list[torch.Tensor],
    ) -> torch.Tensor:
        ids_1n = torch.tensor([chunk], device=self.device)
        embeds = self.model.get_input_embeddings()(ids_1n)
        mask_1n = None
        if image_SD is not None:
            mask_1n = ids_1n == self.renderer.image_token_id
            embeds = embeds.masked_scatter(mask_1n.unsqueeze(-1), image_SD.to(embeds.dtype))
        out = self.model.model.language_model(
            inputs_embeds=embeds,
            position_ids=torch.from_numpy(positions_3n).to(self.device).unsqueeze(1),
            past_key_values=session.cache,
            use_cache=True,
            visual_pos_masks=mask_1n,
            deepstack_visual_embeds=deepstack if mask_1n is not None and deepstack else None,
        )
        return self.model.lm_head(out.last_hidden_state[0, -1]).float()

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
            logits_V = self._forward(session, [token], np.full((3, 1), position, dtype=np.int64), None, [])
            session.token_ids.append(token)
            position += 1
        return FinishReason.LENGTH

    def _vision(self, frames: Sequence[Frame]) -> list[FrameFeatures]:
        """Features of the frames, in order; those not lately seen go through the vision tower."""
        known = {_key(f): self._features.get(_key(f)) for f in frames}
        missing = list({_key(f): f for f in frames if known[_key(f)] is None}.values())
        for i in range(0, len(missing), VISION_BATCH):
            batch = missing[i : i + VISION_BATCH]
            pixels, grids = self.renderer.pixel_inputs(batch, self.store)
            out = self.model.model.get_image_features(
                pixels.to(self.device), grids.to(self.device), return_dict=True
            )
            for j, frame in enumerate(batch):
                features = FrameFeatures(out.pooler_output[j], tuple(d[j] for d in out.deepstack_features or ()))
                known[_key(frame)] = features
                # Clones: a slice would keep its whole batch in memory.
                self._features[_key(frame)] = FrameFeatures(
                    features.image_ND.clone(), tuple(d.clone() for d in features.deepstack)
                )
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
    ids: Sequence[int], frames: Sequence[Frame], renderer: Qwen3VLRenderer
) -> list[tuple[int, int]]:
    """(start, end) of each frame's placeholders in `ids`.

    Raises: ModelError: placeholders and frames disagree in number or length.
    """
    marks = np.asarray(ids) == renderer.image_token_id
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(np.int8), [0]])))
    runs = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    if [b - a for a, b in runs] != [renderer.frame_tokens(f) for f in frames]:
        raise ModelError(f"{len(runs)} groups of image placeholders do not fit the request's {len(frames)} frames")
    return runs


def rope_positions(
    length: int, runs: Sequence[tuple[int, int]], grids: Sequence[tuple[int, int, int]], merge: int
) -> np.ndarray:
    """M-RoPE positions (3, length) int64: text counts on; a frame of R x C merged tokens has one time, its rows and
    columns, and moves the count by max(R, C). Same as `Qwen3VLModel.get_rope_index` for one row of images."""
    positions = np.empty((3, length), dtype=np.int64)
    at = current = 0
    for (start, end), (_, rows, columns) in zip(runs, grids, strict=True):
        positions[:, at:start] = np.arange(current, current + start - at)
        current += start - at
        r, c = rows // merge, columns // merge
        positions[0, start:end] = current
        positions[1, start:end] = current + np.repeat(np.arange(r), c)
        positions[2, start:end] = current + np.tile(np.arange(c), r)
        current += max(r, c)
        at = end
    positions[:, at:] = np.arange(current, current + length - at)
    return positions


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


def _load_model(checkpoint: str, device: str) -> Any:
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration

    looks_local = checkpoint.startswith((".", "/", "~")) or Path(checkpoint).exists()
    folder = str(Path(checkpoint).expanduser()) if looks_local else checkpoint
    if looks_local and not (Path(folder) / "config.json").is_file():
        raise ModelError(f"{checkpoint}: no model there (a folder with config.json is expected)")
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:
        hint = "damaged config.json?" if looks_local else "not in the local cache, and the hub gave nothing; is the id right?"
        raise ModelError(f"{checkpoint}: model not found or unreadable ({hint} {_first_line(error)})") from None
    if config.model_type != "qwen3_vl":
        raise ModelError(f"{checkpoint}: model type {config.model_type!r} is not supported; qwen3_vl is")
    dtype = torch.float32 if device == "cpu" else "auto"
    try:
        loaded: Any = Qwen3VLForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
        model, info = loaded
    except Exception as error:
        raise ModelError(f"{checkpoint}: the weights cannot be loaded ({_first_line(error)})") from None
    lacking = sorted(info["missing_keys"]) + [str(k) for k in info["mismatched_keys"]]
    if lacking:
        raise ModelError(f"{checkpoint}: {len(lacking)} weights are missing or of the wrong shape, such as {lacking[0]}")
    return model.to(device)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

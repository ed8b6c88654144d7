"""A policy behind an OpenAI-compatible server: vLLM, SGLang, `transformers serve`, or a hosted model.

    policy = OpenAIPolicy("http://127.0.0.1:8000/v1", "Qwen/Qwen3-VL-8B-Instruct", store)
    agent = VideoAgent("http://127.0.0.1:8000/v1#Qwen/Qwen3-VL-8B-Instruct")            # the same, with defaults

Each request is one chat completion (`wire` says how it is written, `reply` how it is read, `server` how it is sent and tried
again). Requests run together, `Limits.concurrency` at a time whatever their loops; one that fails is a completion with
`FinishReason.ERROR`, one whose time is over a completion with what had come by then, and neither touches the others.
Cancelling `generate` closes its connections, on which servers stop their work.

Tokens. Without a tokenizer the agent's tokens are estimates (`text`) and trajectories say `exact=False`. With `renderer`, the
renderer of the served checkpoint, a completion is token-exact when the server proves it: it returned token ids and log-probs
(vLLM's `return_token_ids`), its prompt was token for token the agent's, pixels went losslessly, and the log-probs are those of
the sampling temperature. A server is not believed beforehand: each completion is judged, and one that is not exact
makes its trajectory `exact=False`, and no other.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from ....core.aio import in_thread
from ....core.errors import PlayheadError
from ....core.nouns import Completion, FinishReason, Frame
from ....core.policy import GenerateRequest, Renderer, Sampling
from ...renderers.chat import ChatRenderer, PixelSource
from .reply import Reply
from .server import Fault, Limits, Progress, Server, split_url
from .text import TextRenderer
from .wire import HOSTED, Dialect, Writer

_LOG = logging.getLogger("playhead")
JPEG_QUALITY = 90


class OpenAIPolicy:
    """A `Policy` over a server's chat completions.

    Args:
        address: up to and including the version, such as http://127.0.0.1:8000/v1.
        model: the name under which the server knows the model.
        store: where the pixels of requested frames are.
        dialect: what the server takes; None for `HOSTED` over https and the plain one else.
        limits: time limits, retries and how many requests run at once.
        renderer: that of the served checkpoint, for token-exact trajectories; None for estimates.
        scaled_logprobs: the server's log-probs are at the sampling temperature (vLLM: `--logprobs-mode processed_logprobs`).
        image_bytes: bound for the encoded frames that are kept between turns.

    Raises:
        ModelError: the address or the key in the environment is unusable.
    """

    def __init__(
        self,
        address: str,
        model: str,
        store: PixelSource,
        *,
        dialect: Dialect | None = None,
        limits: Limits | None = None,
        renderer: ChatRenderer | None = None,
        scaled_logprobs: bool = False,
        image_bytes: int = 64 << 20,
    ) -> None:
        self.server = Server(address, limits or Limits())
        self.model = model
        self.name = f"{self.server.address}#{model}"
        self.store = store
        self.dialect = dialect or (HOSTED if address.startswith("https://") else Dialect())
        self.inexact_because = "" if renderer is not None else "no tokenizer is at hand"
        self._asks_tokens = renderer is not None
        self._scaled_logprobs = scaled_logprobs
        self._text = TextRenderer()
        self._renderer: ChatRenderer | TextRenderer = renderer or self._text
        self._images: OrderedDict[str, str] = OrderedDict()
        self._image_bytes = image_bytes
        self._lock = threading.Lock()

    @classmethod
    def from_url(cls, url: str, store: PixelSource) -> OpenAIPolicy:
        """The policy of `http://HOST:PORT/v1#MODEL`.

        Raises:
            ModelError: no model is named, or the address is unusable.
        """
        address, model = split_url(url)
        return cls(address, model, store)

    @property
    def renderer(self) -> Renderer:
        return self._renderer

    @property
    def exact(self) -> bool:
        """Whether completions can be exact; each says whether it is, and `inexact_because` why one was not."""
        return self._asks_tokens

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """One completion per request, in order; failures are completions with `FinishReason.ERROR`."""
        return list(await asyncio.gather(*(self._guarded(r) for r in requests)))

    async def _guarded(self, request: GenerateRequest) -> Completion:
        started = time.monotonic()
        progress = Progress()
        seconds = self.server.limits.request_s
        if request.sampling.timeout_s is not None:
            seconds = min(seconds, request.sampling.timeout_s)
        try:
            async with asyncio.timeout(seconds):
                body = await in_thread(self._body, request)
                reply = await self.server.ask(body, progress)
            return self._completion(request, reply, reply.finish_reason, started)
        except TimeoutError:
            if progress.fault is None or progress.reply.text:
                return self._completion(request, progress.reply, FinishReason.TIMEOUT, started)
            return self._failed(f"{progress.fault}, and no time is left to try again", started)
        except Exception as error:  # one bad request must not take the others with it
            kind = "" if isinstance(error, (Fault, PlayheadError)) else f"{type(error).__name__}: "
            return self._failed(f"{kind}{error}", started)

    def _failed(self, why: str, started: float) -> Completion:
        text = self.server.hide(" ".join(why.split()))
        return Completion(token_ids=(), text=text, finish_reason=FinishReason.ERROR, wall_s=time.monotonic() - started)

    def _body(self, request: GenerateRequest) -> bytes:
        body = Writer(self.dialect, self._renderer, self._image).body(request, self.model)
        if self._asks_tokens:
            body |= {"return_token_ids": True, "logprobs": True}
        return json.dumps(body, separators=(",", ":")).encode()

    # Completions.

    def _completion(self, request: GenerateRequest, reply: Reply, finish: FinishReason, started: float) -> Completion:
        ids, logprobs = tuple(reply.token_ids), tuple(reply.logprobs)
        text = self._renderer.completion_text(ids) if self._asks_tokens and ids else reply.text
        if request.messages and request.messages[-1].role == "assistant" and not self.dialect.prefill:
            text = _after_opening(text)
        hidden = self.server.hide(text)
        doubt = "the server echoed the key" if hidden != text else self._doubt(request, reply)
        if doubt:
            if ids or text:
                self._remember(doubt)
            logprobs = ()
            if not ids or hidden != text or not self._asks_tokens:
                ids = self._estimate(hidden, reply)
        return Completion(
            token_ids=ids,
            text=hidden,
            logprobs=logprobs,
            finish_reason=finish,
            prefill_tokens=max(0, (reply.prompt_tokens or len(request.token_ids)) - reply.cached_tokens),
            reused_tokens=reply.cached_tokens,
            wall_s=time.monotonic() - started,
            exact=not doubt,
        )

    def _estimate(self, text: str, reply: Reply) -> tuple[int, ...]:
        if self._asks_tokens:
            return self._renderer.encode(text)
        ended = reply.finish is not None  # an empty reply that ended is an empty turn, not a missing one
        return self._text.spread(text, reply.sampled_tokens or len(self._text.encode(text)) or int(ended))

    def _remember(self, doubt: str) -> None:
        """Say the first time why a completion is not exact: a server that was set up for it should be."""
        if not self.inexact_because:
            self.inexact_because = doubt
            _LOG.warning("%s: a completion is not token-exact: %s", self.name, doubt)

    def _doubt(self, request: GenerateRequest, reply: Reply) -> str:
        """Why the completion is not token-exact; "" when it is."""
        if not self._asks_tokens:
            return "no tokenizer is at hand"
        theirs, ours = reply.prompt_token_ids, request.token_ids
        if not reply.token_ids or not theirs:
            return "the server returned no token ids"
        if tuple(theirs) != ours:
            at = next(
                (i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours))
            )
            return f"the server's prompt ({len(theirs)} tokens) differs from the agent's ({len(ours)}) at token {at}"
        if len(reply.logprobs) != len(reply.token_ids):
            return f"the server returned {len(reply.logprobs)} log-probs for {len(reply.token_ids)} tokens"
        if request.frames and (self.dialect.frames, self.dialect.image_kind) != ("images", "png"):
            return "frames were not sent losslessly as images"
        if not self._at_temperature(request.sampling):
            return "the server's log-probs are not those of the sampling temperature"
        return ""

    def _at_temperature(self, sampling: Sampling) -> bool:
        """Raw log-probs are at temperature 1 (which is also what greedy ones are said to be); scaled ones are
        also cut by top-p."""
        return sampling.top_p == 1 if self._scaled_logprobs else sampling.temperature in (0, 1)

    # Frames.

    def _image(self, frame: Frame) -> str:
        """The frame as base64; kept, because every turn sends all frames again."""
        with self._lock:
            kept = self._images.get(frame.sha256)
            if kept is not None:
                self._images.move_to_end(frame.sha256)
                return kept
        encoded = _encoded(self.store.pixels(frame), self.dialect.image_kind)
        with self._lock:
            self._images[frame.sha256] = encoded
            held = sum(map(len, self._images.values()))
            while held > self._image_bytes and len(self._images) > 1:
                held -= len(self._images.popitem(last=False)[1])
        return encoded


def _encoded(pixels: np.ndarray, kind: str) -> str:
    from PIL import Image

    out = io.BytesIO()
    options = {"compress_level": 1} if kind == "png" else {"quality": JPEG_QUALITY}
    Image.fromarray(pixels).save(out, format=kind.upper(), **options)
    return base64.b64encode(out.getvalue()).decode("ascii")


def _after_opening(text: str) -> str:
    """A forced answer that was asked for in words, as if the model had gone on with `<answer>`."""
    said = text.rpartition("</think>")[2]
    return said.partition("<answer>")[2] if "<answer>" in said else said

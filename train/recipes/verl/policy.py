"""verl's servers as a `Policy`: tokens and images in, tokens and log-probs out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from ....agent.renderers.chat import ChatRenderer, PixelSource
from ....core.errors import ModelError
from ....core.nouns import Completion, FinishReason
from ....core.policy import GenerateRequest


class VerlPolicy:
    """A `Policy` over a verl server manager.

    Args:
        manager: has `await generate(request_id=, prompt_ids=, sampling_params=, image_data=)`, whose result has
            `token_ids`, `log_probs` and `extra_fields`. A request id keeps the turns of an episode on one server.
        renderer: of the trained checkpoint.
        sampling_params: verl's own, sent with every request.

    `versions` are those of the weights that said something so far, as verl counts them: its trainer asks how old an episode is.
    """

    exact = True
    name = "verl"

    def __init__(
        self, manager: Any, renderer: ChatRenderer, store: PixelSource, sampling_params: dict[str, Any]
    ) -> None:
        self._manager, self.renderer, self.store = manager, renderer, store
        self._sampling = dict(sampling_params)
        self.versions: set[int] = set()

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        return list(await asyncio.gather(*(self._one(r) for r in requests)))

    async def _one(self, request: GenerateRequest) -> Completion:
        began = time.monotonic()
        try:
            ids, logprobs = await self._ask(request)
        except Exception as error:  # one bad request must not take the others with it
            line = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return Completion(
                token_ids=(), text=line, finish_reason=FinishReason.ERROR, wall_s=time.monotonic() - began
            )
        ended = bool(ids) and ids[-1] in self.renderer.stop_token_ids
        return Completion(
            token_ids=ids,
            text=self.renderer.completion_text(ids),
            logprobs=logprobs,
            finish_reason=FinishReason.STOP if ended else FinishReason.LENGTH,
            prefill_tokens=len(request.token_ids),
            wall_s=time.monotonic() - began,
            # Without log-probs verl computes those of the old policy itself; the tokens are still those sampled.
            exact=len(logprobs) in (0, len(ids)),
        )

    async def _ask(self, request: GenerateRequest) -> tuple[tuple[int, ...], tuple[float, ...]]:
        from PIL import Image

        images = [Image.fromarray(self.store.pixels(f)) for f in request.frames] or None
        out = await self._manager.generate(
            request_id=request.session,
            prompt_ids=list(request.token_ids),
            sampling_params={**self._sampling, "max_tokens": request.sampling.max_tokens},
            image_data=images,
        )
        if not set(out.token_ids).isdisjoint(self.renderer.suppressed_token_ids):
            raise ModelError("it sampled an image placeholder, and there is no frame behind that")
        told = (out.extra_fields.get(f"{end}_global_steps") for end in ("min", "max"))
        self.versions.update(version for version in told if version is not None)
        return tuple(out.token_ids), tuple(out.log_probs or ())

    def forget(self, session: str) -> None:
        """verl's servers keep their caches themselves."""

"""A request under way."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from random import Random

import numpy as np

from ...core.nouns import Completion, FinishReason
from ...core.policy import GenerateRequest
from ..families.contract import FrameFeatures
from .cache import Node
from .context import Context


class Job:
    """A request, what was sampled of its completion, and the node that holds the cache of its sequence (None while it waits
    or was put back). Made on the event loop; after that only the engine's thread touches it, but for `cancelled`."""

    def __init__(self, request: GenerateRequest) -> None:
        self.request = request
        self.started = time.monotonic()
        limit = request.sampling.timeout_s
        self.deadline = float("inf") if limit is None else self.started + limit
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Completion] = self.loop.create_future()
        self.cancelled = False
        self.most = request.sampling.max_tokens
        self.context: Context | None = None
        self.features: dict[int, FrameFeatures] = {}
        """Of frames not wholly computed yet, by their index in the request."""
        self.blocker: tuple[Job, int] | None = None
        self.restart()

    def restart(self) -> None:
        """Forget what was sampled."""
        self.node: Node | None = None
        self.sampled: list[int] = []
        self.logprobs: list[float] = []
        self.reused: int | None = None
        self.rewind()

    def rewind(self) -> None:
        """The random numbers stand behind the last token sampled, whatever was drawn since and came to nothing."""
        self.numbers = Random(self.request.sampling.seed)
        for _ in self.sampled:
            self.numbers.random()

    @property
    def prompt(self) -> Context:
        assert self.context is not None
        return self.context

    @property
    def length(self) -> int:
        """Tokens of the sequence so far."""
        return len(self.prompt) + len(self.sampled)

    @property
    def done(self) -> int:
        """How many of them are computed."""
        assert self.node is not None
        return self.node.end

    def keys(self, begin: int, end: int) -> np.ndarray:
        return self._span(self.prompt.keys_T, begin, end)

    def ids(self, begin: int, end: int) -> np.ndarray:
        return self._span(self.prompt.ids_T, begin, end)

    def positions(self, begin: int, end: int) -> np.ndarray:
        """(A, end - begin)."""
        prompt, n = self.prompt, len(self.prompt)
        head = prompt.positions_AT[:, begin : min(end, n)]
        if end <= n:
            return head
        tail = np.arange(max(begin - n, 0), end - n, dtype=np.int64) + prompt.next_position
        return np.concatenate([head, np.broadcast_to(tail, (head.shape[0], len(tail)))], axis=1)

    def _span(self, prompt_T: np.ndarray, begin: int, end: int) -> np.ndarray:
        n = len(prompt_T)
        if end <= n:
            return prompt_T[begin:end]
        tail = np.array(self.sampled[max(begin - n, 0) : end - n], dtype=np.int64)
        return tail if begin >= n else np.concatenate([prompt_T[begin:], tail])

    def resolve(self, completion: Completion) -> None:
        """Hand the completion to whoever awaits it, if anyone still does."""

        def deliver() -> None:
            if not self.future.done():
                self.future.set_result(completion)

        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self.loop.call_soon_threadsafe(deliver)

    def failed(self, error: BaseException, version: int) -> Completion:
        text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return Completion(
            token_ids=(),
            text=text,
            finish_reason=FinishReason.ERROR,
            policy_version=version,
            wall_s=time.monotonic() - self.started,
        )

    def finished(self, reason: FinishReason, text: str, version: int) -> Completion:
        reused = self.reused or 0
        prompt = 0 if self.context is None or self.reused is None else len(self.context)
        return Completion(
            token_ids=tuple(self.sampled),
            text=text,
            logprobs=tuple(self.logprobs),
            finish_reason=reason,
            policy_version=version,
            prefill_tokens=max(0, prompt - reused),
            reused_tokens=reused,
            wall_s=time.monotonic() - self.started,
        )

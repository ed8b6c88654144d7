"""A policy that says what it is told to: for tests, and for the oracle that knows the answers.

Everything around it is the real thing: its words are tokenised by a real renderer, so its trajectories are as
token-exact as a model's and can be learned from. It reports no log-probs, since nothing was sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...core.nouns import Completion, FinishReason
from ...core.policy import GenerateRequest, Renderer


class ScriptedPolicy:
    """A `Policy` with a script.

    Args:
        renderer: the renderer of the family whose tokens are spoken.
        script: what to say: a callback from the request to the text of the reply, or a list of replies, one per call in
            order (for one trajectory at a time); when the list is used up, its last reply is said again.
        end: what closes a reply, in text.
    """

    exact = True

    def __init__(
        self,
        renderer: Renderer,
        script: Callable[[GenerateRequest], str] | Sequence[str],
        *,
        name: str = "scripted",
        end: str = "<|im_end|>",
    ) -> None:
        if not callable(script) and not script:
            raise ValueError("a script needs at least one reply")
        self.renderer = renderer
        self.name = name
        self.requests: list[GenerateRequest] = []
        self._script = script
        self._end = end

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: GenerateRequest) -> Completion:
        if callable(self._script):
            text = self._script(request)
        else:
            text = self._script[min(len(self.requests), len(self._script) - 1)]
            self.requests.append(request)
        ids = self.renderer.encode(text + self._end)
        limit = request.sampling.max_tokens
        if len(ids) <= limit:
            return Completion(token_ids=ids, text=text, prefill_tokens=len(request.token_ids))
        return Completion(
            token_ids=ids[:limit],
            text=self.renderer.decode(ids[:limit]),
            finish_reason=FinishReason.LENGTH,
            prefill_tokens=len(request.token_ids),
        )

"""The Video-LMM as a captioner: one short prompt per frame, outside the episode's own context, on the episode's budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..core.budget import Usage
from ..core.errors import ModelError
from ..core.nouns import FinishReason, Frame, Message
from ..core.policy import GenerateRequest, Policy, Sampling
from ..tools.contract import ToolFault
from .allowance import spend
from .prompts import CAPTION_PROMPT

CAPTION_TOKENS = 48


@dataclass(slots=True)
class PolicyCaptioner:
    """A `tools.Captioner` for one turn. It may sample `tokens_left` in `calls_left` calls of the policy; `spent` says what it
    cost."""

    policy: Policy
    session: str
    seed: int
    tokens_left: int
    timeout_s: float | None = None
    calls_left: int = 1 << 30
    spent: Usage = field(default_factory=Usage)

    async def caption(self, frames: Sequence[Frame]) -> list[str]:
        """One sentence a frame, greedily sampled.

        Raises:
            ToolFault: the budget has too few tokens left.
            ModelError: the policy failed.
        """
        each = min(CAPTION_TOKENS, self.tokens_left // max(1, len(frames)))
        if each < 4:
            raise ToolFault("too few tokens are left to describe frames. Answer from what you have seen.")
        if len(frames) > self.calls_left:
            raise ToolFault(f"only {self.calls_left} more frames can be described. Ask for fewer, or answer now.")
        self.tokens_left -= each * len(frames)
        self.calls_left -= len(frames)
        self.spent = spend(self.spent, frames=len(frames), model_calls=len(frames))
        requests = [self._request(i, frame, each) for i, frame in enumerate(frames)]
        completions = await self.policy.generate(requests)
        forget = getattr(self.policy, "forget", None)
        for request in requests if forget is not None else ():
            forget(request.session)  # pyright: ignore[reportOptionalCall]
        self.spent = spend(
            self.spent,
            sampled_tokens=sum(len(c.token_ids) for c in completions),
            prefill_tokens=sum(c.prefill_tokens for c in completions),
            reused_tokens=sum(c.reused_tokens for c in completions),
        )
        for completion in completions:
            if completion.finish_reason is FinishReason.ERROR:
                raise ModelError(f"{self.policy.name} could not describe a frame: {completion.text}")
        return [" ".join(c.text.split()) or "nothing to say" for c in completions]

    def _request(self, i: int, frame: Frame, tokens: int) -> GenerateRequest:
        messages = (Message(role="user", content=(frame, CAPTION_PROMPT)),)
        start = self.policy.renderer.start(messages, ())
        return GenerateRequest(
            session=f"{self.session}/caption{i}",
            token_ids=start.token_ids,
            frames=start.frames,
            messages=messages,
            sampling=Sampling(max_tokens=tokens, seed=self.seed, timeout_s=self.timeout_s),
        )

"""One token per row of logits, each row by its own request's random numbers.

A token is drawn by one uniform number a step, put through the cumulative distribution (in float64, over the vocabulary in
its order). The numbers come from a generator seeded by the request, so they depend on seed and step alone: not on the
batch, the device, or on what was evicted and computed again. What the batch does change, by float noise, are the logits;
the drawn token changes only where the uniform number lies within that noise of a boundary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch

from ...core.policy import Sampling

_BELOW_ONE = 1 - 2**-52
"""A number below 1 times this, times a total mass, stays below that total, however it is rounded."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One step of B rows. `logprobs` are in nats, not finite for a row without a finite logit."""

    tokens_B: torch.Tensor
    tokens: list[int]
    logprobs: list[float]


class Rows:
    """How the tokens of B rows are drawn: what does not change from step to step is worked out once.

    The log-probability is `log_softmax(logits / temperature)` (temperature 1 when greedy) over the whole vocabulary, before
    `top_p` and before `suppressed` tokens are ruled out, which is what a trainer computes. So with `top_p` below 1 it is not
    that of the distribution that was drawn from.

    Args:
        numbers: each row's own; one is used a step of every row that is not greedy.
        suppressed: (S,) int64, tokens that are never drawn.
    """

    def __init__(self, samplings: Sequence[Sampling], numbers: Sequence[Random], suppressed: torch.Tensor) -> None:
        device = suppressed.device
        self._suppressed, self._barred = suppressed, frozenset(suppressed.tolist())
        self._warm = [i for i, s in enumerate(samplings) if s.temperature > 0]
        self._numbers = [numbers[i] for i in self._warm]
        self._all_warm = len(self._warm) == len(samplings)
        temperatures = [s.temperature if s.temperature > 0 else 1.0 for s in samplings]
        self._temperature_B1 = None
        if any(t != 1.0 for t in temperatures):
            self._temperature_B1 = torch.tensor(temperatures, device=device).unsqueeze(1)
        nuclei = [samplings[i].top_p for i in self._warm]
        self._cut = [i for i, p in enumerate(nuclei) if p < 1]
        self._top_p = torch.tensor([nuclei[i] for i in self._cut], device=device)

    def draw(self, logits_BV: torch.Tensor) -> Drawn:
        """The next token of each row; `logits_BV` are raw, float32."""
        if self._temperature_B1 is not None:
            logits_BV = logits_BV / self._temperature_B1
        logprobs_BV = torch.log_softmax(logits_BV, dim=-1)
        if not self._warm:
            return self._likeliest(logprobs_BV)
        if self._all_warm:
            tokens_B1 = self._inverse_cdf(logprobs_BV)
        else:
            tokens_B1 = self._likeliest(logprobs_BV).tokens_B.unsqueeze(1)
            tokens_B1[self._warm] = self._inverse_cdf(logprobs_BV[self._warm])
        tokens_B = tokens_B1.squeeze(1)
        return Drawn(tokens_B, tokens_B.tolist(), logprobs_BV.gather(1, tokens_B1).squeeze(1).tolist())

    def _likeliest(self, logprobs_BV: torch.Tensor) -> Drawn:
        chosen_B, tokens_B = logprobs_BV.max(dim=-1)
        tokens = tokens_B.tolist()
        if not self._barred.isdisjoint(tokens):  # rare, so the usual step does not copy the rows
            chosen_B, tokens_B = logprobs_BV.index_fill(1, self._suppressed, float("-inf")).max(dim=-1)
            tokens = tokens_B.tolist()
        return Drawn(tokens_B, tokens, chosen_B.tolist())

    def _inverse_cdf(self, logprobs_WV: torch.Tensor) -> torch.Tensor:
        """(W, 1)."""
        probs_WV = logprobs_WV.double().exp_().index_fill_(1, self._suppressed, 0.0)
        if self._cut:
            probs_WV[self._cut] = _nucleus(probs_WV[self._cut], self._top_p)
        cdf_WV = probs_WV.cumsum_(-1)
        drawn = [[n.random() * _BELOW_ONE] for n in self._numbers]
        wanted_W1 = torch.tensor(drawn, dtype=torch.float64, device=cdf_WV.device) * cdf_WV[:, -1:]
        # `right`: the first token whose cumulative mass exceeds the number, so one of probability 0 is never it.
        return torch.searchsorted(cdf_WV, wanted_W1, right=True).clamp_(max=cdf_WV.shape[1] - 1)


def _nucleus(masses_BV: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Zero all but the smallest head whose share reaches `top_p`: a token stays when the share before it does not."""
    ordered, order = masses_BV.sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    ordered[before >= top_p.unsqueeze(1) * masses_BV.sum(-1, keepdim=True)] = 0
    return torch.zeros_like(masses_BV).scatter_(1, order, ordered)

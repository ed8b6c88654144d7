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

    tokens_1B: torch.Tensor
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
        self._temperature_1B1 = None
        if any(t != 1.0 for t in temperatures):
            self._temperature_1B1 = torch.tensor(temperatures, device=device).view(1, -1, 1)
        nuclei = [samplings[i].top_p for i in self._warm]
        self._cut = [i for i, p in enumerate(nuclei) if p < 1]
        self._top_p = torch.tensor([nuclei[i] for i in self._cut], device=device)

    def draw(self, logits_1BV: torch.Tensor) -> Drawn:
        """The next token of each row; `logits_1BV` are raw, float32. (Logits come and tokens go in the model's own shape:
        a view between two steps costs what a product of small matrices does.)"""
        if self._temperature_1B1 is not None:
            logits_1BV = logits_1BV / self._temperature_1B1
        logprobs_1BV = torch.log_softmax(logits_1BV, dim=-1)
        if not self._warm:
            return self._likeliest(logprobs_1BV)
        if self._all_warm:
            tokens_1B = self._inverse_cdf(logprobs_1BV)
        else:
            tokens_1B = self._likeliest(logprobs_1BV).tokens_1B
            tokens_1B[:, self._warm] = self._inverse_cdf(logprobs_1BV[:, self._warm])
        logprobs = logprobs_1BV.gather(2, tokens_1B.unsqueeze(2)).squeeze(2).tolist()
        return Drawn(tokens_1B, tokens_1B.tolist()[0], logprobs[0])

    def _likeliest(self, logprobs_1BV: torch.Tensor) -> Drawn:
        chosen_1B, tokens_1B = logprobs_1BV.max(dim=-1)
        (tokens,) = tokens_1B.tolist()
        if not self._barred.isdisjoint(tokens):  # rare, so the usual step does not copy the rows
            chosen_1B, tokens_1B = logprobs_1BV.index_fill(2, self._suppressed, float("-inf")).max(dim=-1)
            (tokens,) = tokens_1B.tolist()
        return Drawn(tokens_1B, tokens, chosen_1B.tolist()[0])

    def _inverse_cdf(self, logprobs_1WV: torch.Tensor) -> torch.Tensor:
        """(1, W)."""
        probs_1WV = logprobs_1WV.double().exp_().index_fill_(2, self._suppressed, 0.0)
        if self._cut:
            probs_1WV[:, self._cut] = _nucleus(probs_1WV[:, self._cut], self._top_p)
        cdf_1WV = probs_1WV.cumsum_(-1)
        drawn = [[[n.random() * _BELOW_ONE] for n in self._numbers]]
        wanted_1W1 = torch.tensor(drawn, dtype=torch.float64, device=cdf_1WV.device) * cdf_1WV[..., -1:]
        # `right`: the first token whose cumulative mass exceeds the number, so one of probability 0 is never it.
        return torch.searchsorted(cdf_1WV, wanted_1W1, right=True).squeeze(2).clamp_(max=cdf_1WV.shape[2] - 1)


def _nucleus(masses_1BV: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Zero all but the smallest head whose share reaches `top_p`: a token stays when the share before it does not."""
    ordered, order = masses_1BV.sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    ordered[before >= top_p.unsqueeze(1) * masses_1BV.sum(-1, keepdim=True)] = 0
    return torch.zeros_like(masses_1BV).scatter_(2, order, ordered)

"""One token per row of logits, each row by its own request's random numbers.

A token is drawn by one uniform number a step, put through the cumulative distribution (in float64, over the vocabulary in
its order). The numbers come from a generator seeded by the request, so they depend on seed and step alone: not on the
batch, the device, or on what was evicted and computed again. What the batch does change, by float noise, are the logits;
the drawn token changes only where the uniform number lies within that noise of a boundary.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch

from ...core.policy import Sampling


def draw(
    logits_BV: torch.Tensor, samplings: Sequence[Sampling], numbers: Sequence[Random], suppressed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens (B,) int64, their log-probabilities (B,) float32 in nats, not finite for a row without a finite logit).

    The log-probability is `log_softmax(logits / temperature)` (temperature 1 when greedy) over the whole vocabulary, before
    `top_p` and before `suppressed` tokens are ruled out, which is what a trainer computes. So with `top_p` below 1 it is not
    that of the distribution that was drawn from.

    Args:
        logits_BV: raw, float32.
        numbers: each row's own; one is used of every row that is not greedy.
        suppressed: (S,) int64, tokens that are never drawn.
    """
    warm = [i for i, s in enumerate(samplings) if s.temperature > 0]
    if any(samplings[i].temperature != 1.0 for i in warm):
        temperatures = [s.temperature if s.temperature > 0 else 1.0 for s in samplings]
        logits_BV = logits_BV / torch.tensor(temperatures, device=logits_BV.device).unsqueeze(1)
    logprobs_BV = torch.log_softmax(logits_BV, dim=-1)
    allowed_BV = logprobs_BV.index_fill(1, suppressed, float("-inf"))
    if not warm:
        chosen_B, tokens_B = allowed_BV.max(dim=-1)
        return tokens_B, chosen_B
    if len(warm) == len(samplings):
        tokens_B = _inverse_cdf(allowed_BV, samplings, numbers)
    else:
        tokens_B = allowed_BV.argmax(dim=-1)
        tokens_B[warm] = _inverse_cdf(allowed_BV[warm], [samplings[i] for i in warm], [numbers[i] for i in warm])
    return tokens_B, logprobs_BV.gather(1, tokens_B.unsqueeze(1)).squeeze(1)


def _inverse_cdf(allowed_BV: torch.Tensor, samplings: Sequence[Sampling], numbers: Sequence[Random]) -> torch.Tensor:
    device = allowed_BV.device
    uniform = torch.tensor([n.random() for n in numbers], dtype=torch.float64, device=device)
    probs_BV = allowed_BV.softmax(-1, dtype=torch.float64)
    cut = [i for i, s in enumerate(samplings) if s.top_p < 1]
    if cut:
        probs_BV[cut] = _nucleus(probs_BV[cut], torch.tensor([samplings[i].top_p for i in cut], device=device))
    cdf_BV = probs_BV.cumsum(-1)
    total = cdf_BV[:, -1]
    # `right`: the first token whose cumulative mass exceeds the number, so one of probability 0 is never it.
    wanted = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf_BV, wanted.unsqueeze(1), right=True).squeeze(1).clamp_(max=cdf_BV.shape[1] - 1)


def _nucleus(probs_BV: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Zero all but the smallest head whose mass reaches `top_p`: a token stays when the mass before it does not."""
    ordered, order = probs_BV.sort(dim=-1, descending=True)
    ordered[ordered.cumsum(-1) - ordered >= top_p.unsqueeze(1)] = 0
    return torch.zeros_like(probs_BV).scatter_(1, order, ordered)

"""One pass of the model over new tokens of many sequences, ragged, packed side by side into a single row.

Any mix of long prefills and single decoded tokens goes into a pass. Nothing is committed before it has succeeded, so a
failed pass can be repeated with fewer sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..families.contract import ModelFamily
from .attention import NoCache, Plan, Segment, attending, install
from .cache import LayerShape
from .job import Job


@dataclass(frozen=True, slots=True)
class Take:
    """The next `tokens` tokens of a job."""

    job: Job
    tokens: int

    @property
    def completes(self) -> bool:
        """Nothing is left to compute after them, so the next token can be sampled."""
        return self.job.done + self.tokens == self.job.length


class Stepper:
    """Runs passes through one family's model."""

    def __init__(self, family: ModelFamily) -> None:
        self._family = family
        install(family.model)

    def cache_shapes(self) -> list[LayerShape]:
        """What each layer caches of a token, found by running one."""
        plan = Plan([], self._family.device)
        plan.seen = {}
        device = self._family.device
        with torch.inference_mode(), attending(plan):
            ids_11 = torch.zeros(1, 1, dtype=torch.long, device=device)
            self._family.hidden(ids_11, ids_11.expand(self._family.axes, 1, 1), NoCache())
        plan.check()
        return [plan.seen[layer] for layer in sorted(plan.seen)]

    def run(self, takes: Sequence[Take]) -> torch.Tensor | None:
        """Logits (1, C, V) after the last token of the C takes that complete their job, in order; None when there are none.

        The nodes have room, and the jobs hold the features of the frames that the tokens show.
        """
        segments, row = [], 0
        for take in takes:
            assert take.job.node is not None
            segments.append(Segment(take.job.node, row, take.tokens))
            row += take.tokens
        device = self._family.device
        spans = [(t.job, t.job.done, t.job.done + t.tokens) for t in takes]
        ids_1N, positions_A1N = self._inputs(spans)
        image_SD, deepstack = _images(spans)
        last = [s.row + s.tokens - 1 for s, t in zip(segments, takes, strict=True) if t.completes]
        plan = Plan(segments, device)
        with torch.inference_mode(), attending(plan):
            hidden_1ND = self._family.hidden(ids_1N.to(device), positions_A1N.to(device), NoCache(), image_SD, deepstack)
            plan.check()
            if len(last) != row:  # a slice where that will do: it copies nothing
                hidden_1ND = hidden_1ND[:, -1:] if last == [row - 1] else hidden_1ND[:, last]
            return self._family.logits(hidden_1ND) if last else None

    def _inputs(self, spans: Sequence[tuple[Job, int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (1, N) and positions (A, 1, N)."""
        if all(job.sampled and b - a == 1 and b == job.length for job, a, b in spans):  # the usual step, without numpy
            at = torch.tensor([job.prompt.next_position + len(job.sampled) - 1 for job, _, _ in spans])
            return torch.tensor([[job.sampled[-1] for job, _, _ in spans]]), at.expand(self._family.axes, 1, -1)
        ids_N = np.concatenate([job.ids(a, b) for job, a, b in spans])
        positions_AN = np.concatenate([job.positions(a, b) for job, a, b in spans], axis=1)
        return torch.from_numpy(ids_N).unsqueeze(0), torch.from_numpy(positions_AN).unsqueeze(1)


def _images(spans: Sequence[tuple[Job, int, int]]) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
    """Features of all placeholders in the row, in order, and those of each deepstack layer."""
    parts = [(job.features[i], low, high) for job, a, b in spans for i, low, high in job.prompt.shown(a, b)]
    if not parts:
        return None, []
    image_SD = torch.cat([_rows(f.image_ND, low, high) for f, low, high in parts])
    layers = range(len(parts[0][0].deepstack))
    return image_SD, [torch.cat([_rows(f.deepstack[i], low, high) for f, low, high in parts]) for i in layers]


def _rows(features_ND: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """Most frames are shown whole, and a view of each would cost more than copying it."""
    return features_ND if high - low == len(features_ND) else features_ND[low:high]

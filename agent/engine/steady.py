"""Decoding step after step of the same sequences: what stays the same between two steps is made once.

Most of a model's passes are of this kind, and the smallest tensor operation next to a large model costs tens of
microseconds, for the model has swept it out of the processor's caches. So there are few between two steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ..families.contract import ModelFamily
from .attention import NoCache, Plan, Segment, attending
from .job import Job


class Steady:
    """Passes over one new token of each of `jobs`, whose last token was sampled and is not computed yet.

    Their nodes have room, and nobody else's path changes meanwhile.

    Attributes:
        tokens_B: what the next pass computes: the last sampled token of each.
        room: so many passes fit.
    """

    def __init__(self, family: ModelFamily, jobs: Sequence[Job]) -> None:
        self._family, self._jobs, self._cache = family, jobs, NoCache()
        self._nodes = [job.node for job in jobs if job.node is not None]
        self._plan = Plan([Segment(node, row, 1) for row, node in enumerate(self._nodes)], family.device)
        at = torch.tensor([job.prompt.next_position + len(job.sampled) - 1 for job in jobs], device=family.device)
        self._positions_A1B = at.expand(family.axes, 1, -1).clone()
        self.tokens_B = torch.tensor([job.sampled[-1] for job in jobs], device=family.device)
        self.room = min(node.capacity - node.length for node in self._nodes)

    @contextmanager
    def going(self) -> Iterator[None]:
        """Passes happen inside; afterwards the nodes know which tokens they hold."""
        began = [(node.length, len(job.sampled) - 1) for job, node in zip(self._jobs, self._nodes, strict=True)]
        try:
            with attending(self._plan):
                yield
        finally:
            for job, node, (length, first) in zip(self._jobs, self._nodes, began, strict=True):
                node.keys[length : node.length] = job.sampled[first : first + node.length - length]

    def run(self) -> torch.Tensor:
        """Logits (B, V) behind the last token of each. Nothing counts before `commit`."""
        hidden_1BD = self._family.hidden(self.tokens_B.view(1, -1), self._positions_A1B, self._cache)
        self._plan.check()
        return self._family.logits(hidden_1BD.view(-1, hidden_1BD.shape[2]))

    def commit(self) -> None:
        """The pass went well: its tokens are cached."""
        for node in self._nodes:
            node.length += 1
        self._plan.advance()
        self._positions_A1B += 1

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
from .cache import PrefixTree
from .job import Job
from .tails import Tails

MOST_PASSES = 256
"""For so many passes positions are made at once."""


class Steady:
    """Passes over one new token of each of `jobs`, whose last token was sampled and is not computed yet.

    Their nodes have room, and nobody else's path changes meanwhile.

    Attributes:
        tokens_1B: what the next pass computes: the last sampled token of each.
    """

    def __init__(self, family: ModelFamily, jobs: Sequence[Job], tree: PrefixTree) -> None:
        self._family, self._jobs, self._tree, self._cache = family, jobs, tree, NoCache()
        self._nodes = [job.node for job in jobs if job.node is not None]
        self._plan = Plan([Segment(node, row, 1) for row, node in enumerate(self._nodes)], family.device)
        at = torch.tensor([job.prompt.next_position + len(job.sampled) - 1 for job in jobs], device=family.device)
        self.tokens_1B = torch.tensor([[job.sampled[-1] for job in jobs]], device=family.device)
        room = min(node.capacity - node.length for node in self._nodes)
        # The first to reach its limit ends this.
        left = min(job.request.sampling.max_tokens - len(job.sampled) for job in jobs)
        passes = min(room, left, MOST_PASSES)
        self._tails = Tails.of(self._plan, tree, passes)
        steps = torch.arange(passes, device=family.device)
        self._positions = (at + steps.unsqueeze(1)).unsqueeze(1).unsqueeze(1).expand(-1, family.axes, -1, -1).unbind()

    @contextmanager
    def going(self) -> Iterator[None]:
        """Passes happen inside; afterwards the nodes know which tokens they hold."""
        began = [(node.length, len(job.sampled) - 1) for job, node in zip(self._jobs, self._nodes, strict=True)]
        lent = 0 if self._tails is None else self._tails.nbytes
        self._tree.count(lent)
        kept = False
        try:
            with attending(self._plan):
                yield
        finally:
            self._tree.count(-lent)
            try:
                if self._tails is not None:
                    self._tails.put_back([length for length, _ in began])
                kept = True
            finally:  # where nothing could be put back, what was sampled is computed again
                for job, node, (length, first) in zip(self._jobs, self._nodes, began, strict=True):
                    # All but the last token sampled: a pass whose tokens were not drawn does not count.
                    node.length = length + (len(job.sampled) - 1 - first if kept else 0)
                    node.keys[length : node.length] = job.sampled[first : first + node.length - length]

    def passes(self) -> Iterator[torch.Tensor]:
        """Of each pass, logits (1, B, V) behind the last token of each, which then counts as cached. Whoever goes on sets
        `tokens_1B`. It ends when there is no room for more; a pass that fails leaves nothing behind that counts."""
        hidden, logits, plan, nodes = self._family.hidden, self._family.logits, self._plan, self._nodes
        for positions_A1B in self._positions:
            logits_1BV = logits(hidden(self.tokens_1B, positions_A1B, self._cache))
            plan.check()
            for node in nodes:
                node.length += 1
            plan.advance()
            yield logits_1BV

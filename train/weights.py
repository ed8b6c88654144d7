"""Loss weights: how much each sampled token counts, said in a few words.

    LossWeights(thought=0.5, words={" yes": 3.0, " no": 3.0}, after={";": 10.0})

A completion has parts: the thought, to the end of `</think>`; calls, from `<tool_call>` to `</tool_call>`; and what is neither,
the answer with its evidence. The weight of a token is that of its part, times its own, times that of the token before it. A
token that crosses a border belongs to the part in which it begins.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby

from ..agent.renderers.chat import ChatRenderer
from ..core.errors import DataError
from .samples import TrainingSample

_CALL, _CALL_END, _THOUGHT_END = "<tool_call>", "</tool_call>", "</think>"


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """1 counts like every other token, 0 not at all. Raises: ValueError: a negative weight."""

    thought: float = 1.0
    call: float = 1.0
    answer: float = 1.0
    """Of whatever is neither thought nor call: the answer, its evidence, and the end of the turn."""
    words: Mapping[str, float] = field(default_factory=dict)
    """Of single tokens, by their text."""
    after: Mapping[str, float] = field(default_factory=dict)
    """Of whatever follows such a token."""

    def __post_init__(self) -> None:
        numbers = (self.thought, self.call, self.answer, *self.words.values(), *self.after.values())
        if min(numbers) < 0:
            raise ValueError(f"loss weights must not be negative; got {min(numbers)}")

    @property
    def by_part(self) -> bool:
        """Whether parts differ, so that they must be looked for."""
        return not self.thought == self.call == self.answer


class Weigher:
    """Puts weights on samples.

    Raises: DataError: a word of the weights is not a single token of this tokenizer.
    """

    def __init__(self, weights: LossWeights, renderer: ChatRenderer) -> None:
        self.weights, self._renderer = weights, renderer
        self._words = {_token(word, renderer): w for word, w in weights.words.items()}
        self._after = {_token(word, renderer): w for word, w in weights.after.items()}

    def __call__(self, sample: TrainingSample) -> TrainingSample:
        """The sample with `weights_T`: as said on tokens inside the loss mask, 0 outside."""
        weights = [0.0] * len(sample.token_ids_T)
        at = 0
        for inside, run in groupby(sample.loss_mask_T):
            end = at + sum(1 for _ in run)
            if inside:
                weights[at:end] = self._parts(sample.token_ids_T[at:end])
            at = end
        ids = sample.token_ids_T
        for i, token in enumerate(ids):
            if weights[i]:
                before = ids[i - 1] if i else -1
                weights[i] *= self._words.get(token, 1.0) * self._after.get(before, 1.0)
        return replace(sample, weights_T=tuple(weights))

    def _parts(self, ids: tuple[int, ...]) -> list[float]:
        w = self.weights
        if not w.by_part:
            return [w.thought] * len(ids)
        text = self._renderer.decode(ids)
        borders = _borders(text, w)
        # The text before token k grows with k, so the token that holds a character is found by bisection.
        lengths = _Lengths(ids, self._renderer)
        starts = [(bisect_left(lengths, position), weight) for position, weight in borders]
        out = [w.thought] * len(ids)
        for start, weight in starts:
            out[start:] = [weight] * (len(ids) - start)
        return out


class _Lengths:
    """`[k]`: characters of the first k tokens."""

    def __init__(self, ids: tuple[int, ...], renderer: ChatRenderer) -> None:
        self._ids, self._renderer = ids, renderer

    def __len__(self) -> int:
        return len(self._ids) + 1

    def __getitem__(self, k: int) -> int:
        return len(self._renderer.decode(self._ids[:k]))


def _borders(text: str, weights: LossWeights) -> list[tuple[int, float]]:
    """(first character, weight) of each part, in order; the first begins at 0."""
    said = text.find(_THOUGHT_END)
    if said < 0:  # a thought without an end, or no thought at all
        said = len(text) if "<think>" in text else 0
    else:
        said += len(_THOUGHT_END)
    borders = [(0, weights.thought), (said, weights.answer)] if said else [(0, weights.answer)]
    while (start := text.find(_CALL, said)) >= 0:
        end = text.find(_CALL_END, start)
        borders.append((start, weights.call))
        if end < 0:
            break
        said = end + len(_CALL_END)
        borders.append((said, weights.answer))
    return borders


def _token(word: str, renderer: ChatRenderer) -> int:
    ids = renderer.encode(word)
    if len(ids) != 1:
        raise DataError(f"loss weight of {word!r}: {len(ids)} tokens of this tokenizer, not one; name single tokens")
    return ids[0]

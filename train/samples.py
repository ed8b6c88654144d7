"""Samples: the one place where a trajectory becomes training data.

    deltas      P P P P P | A A A | O O O O | A A A          (P prompt, A sampled, O observation)
    loss_mask   0 0 0 0 0 | 1 1 1 | 0 0 0 0 | 1 1 1

A trajectory is one sample: it is stored as deltas, so no turn can have seen other tokens than those before it.

Every invariant is checked for every sample, and a breach names the trajectory:
- mask and log-probs are as long as the tokens; advantages and weights too, where there are any;
- every number is finite, no weight is negative;
- turns end in order, the last with the last token, and none inside an image;
- the image placeholders are those of the frames, in order, each frame's as many as it takes;
- no placeholder is trained on; something is.

What is too long loses whole turns from its end (`truncate`), never half of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..core.errors import DataError
from ..core.nouns import Frame
from ..core.policy import Renderer
from ..core.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSample:
    """A token sequence that a policy saw and spoke; axis T tokens, F frames, K turns."""

    id: str
    kind: str
    token_ids_T: tuple[int, ...]
    loss_mask_T: tuple[int, ...]
    """1 on tokens that the policy sampled."""
    logprobs_T: tuple[float, ...]
    """Of sampled tokens as recorded, 0 elsewhere; all 0 when the policy reported none."""
    frames_F: tuple[Frame, ...]
    policy_version_min: int = 0
    policy_version_max: int = 0
    advantages_T: tuple[float, ...] = ()
    """What reinforcement learning says of each token; empty where nobody said anything."""
    weights_T: tuple[float, ...] = ()
    """How much each token counts in the loss, where the mask is 1; empty: all alike."""
    turn_ends_K: tuple[int, ...] = ()
    """Where each turn (its context and its completion) ends; empty: one turn."""


def sample_of(trajectory: Trajectory, renderer: Renderer, image_token_id: int) -> TrainingSample:
    """The sample of a token-exact trajectory.

    Raises:
        DataError: the trajectory is not exact, has no turns, or breaks an invariant (see the module).
    """
    if not trajectory.exact:
        raise DataError(
            f"trajectory {trajectory.id}: its tokens are not those sampled (exact=False), so it cannot be trained on"
        )
    if not trajectory.turns:
        raise DataError(f"trajectory {trajectory.id}: it has no turns")
    versions = [t.completion.policy_version for t in trajectory.turns]
    sample = TrainingSample(
        id=trajectory.id,
        kind=trajectory.task.kind,
        token_ids_T=trajectory.token_ids,
        loss_mask_T=trajectory.loss_mask,
        logprobs_T=_logprobs(trajectory),
        frames_F=trajectory.frames,
        policy_version_min=min(versions),
        policy_version_max=max(versions),
        turn_ends_K=_turn_ends(trajectory),
    )
    check_sample(sample, renderer, image_token_id)
    return sample


def check_sample(sample: TrainingSample, renderer: Renderer, image_token_id: int) -> None:
    """Raises: DataError: which invariant the sample breaks, by its id."""
    where, length = f"sample {sample.id}", len(sample.token_ids_T)
    if len(sample.loss_mask_T) != length or len(sample.logprobs_T) != length:
        raise DataError(
            f"{where}: {length} tokens, but {len(sample.loss_mask_T)} mask bits and {len(sample.logprobs_T)} log-probs"
        )
    for name, values in (("advantages", sample.advantages_T), ("weights", sample.weights_T)):
        if values and len(values) != length:
            raise DataError(f"{where}: {length} tokens, but {len(values)} {name}")
    if not all(map(math.isfinite, (*sample.logprobs_T, *sample.advantages_T, *sample.weights_T))):
        raise DataError(f"{where}: a log-prob, advantage or weight is not a finite number")
    if any(w < 0 for w in sample.weights_T):
        raise DataError(f"{where}: a loss weight is negative")
    _check_images(sample, renderer, image_token_id)
    _check_turns(sample, image_token_id)
    if any(m and t == image_token_id for t, m in zip(sample.token_ids_T, sample.loss_mask_T, strict=True)):
        raise DataError(f"{where}: an image placeholder is inside the loss mask")
    if not any(sample.loss_mask_T):
        raise DataError(f"{where}: nothing in it was sampled, so there is nothing to train on")


def truncate(
    sample: TrainingSample, max_tokens: int, renderer: Renderer, image_token_id: int
) -> tuple[TrainingSample | None, int]:
    """(the sample without the turns that do not fit into `max_tokens`, how many those are).

    None in the sample's place where nothing to train on is left.
    """
    ends = sample.turn_ends_K or (len(sample.token_ids_T),)
    kept = tuple(end for end in ends if end <= max_tokens)
    if len(kept) == len(ends):
        return sample, 0
    end = kept[-1] if kept else 0
    if not any(sample.loss_mask_T[:end]):
        return None, len(ends)
    shown, frames = sample.token_ids_T[:end].count(image_token_id), []
    for frame in sample.frames_F:
        if shown <= 0:
            break
        frames.append(frame)
        shown -= renderer.frame_tokens(frame)
    short = replace(
        sample,
        token_ids_T=sample.token_ids_T[:end],
        loss_mask_T=sample.loss_mask_T[:end],
        logprobs_T=sample.logprobs_T[:end],
        advantages_T=sample.advantages_T[:end],
        weights_T=sample.weights_T[:end],
        frames_F=tuple(frames),
        turn_ends_K=kept,
    )
    check_sample(short, renderer, image_token_id)
    return short, len(ends) - len(kept)


@dataclass(frozen=True, kw_only=True, slots=True)
class Truncated:
    """Samples that fit, and what was dropped to make them."""

    samples: tuple[TrainingSample, ...]
    turns_dropped: int
    samples_dropped: int
    """Of which not even the first trained turn fits; their turns are counted too."""


def truncate_all(
    samples: Iterable[TrainingSample], max_tokens: int, renderer: Renderer, image_token_id: int
) -> Truncated:
    """`truncate` for each, with the counts."""
    done = [truncate(s, max_tokens, renderer, image_token_id) for s in samples]
    return Truncated(
        samples=tuple(s for s, _ in done if s is not None),
        turns_dropped=sum(n for _, n in done),
        samples_dropped=sum(s is None for s, _ in done),
    )


def _check_images(sample: TrainingSample, renderer: Renderer, image_token_id: int) -> None:
    runs = _placeholder_lengths(sample.token_ids_T, image_token_id)
    expected = [renderer.frame_tokens(frame) for frame in sample.frames_F]
    rest = iter(runs)
    for n in expected:  # a frame that is cut into tiles has a run for each
        got = 0
        while got < n:
            got += next(rest, n + 1)
        if got != n:
            break
    else:
        if next(rest, None) is None:
            return
    raise DataError(
        f"sample {sample.id}: image placeholders do not fit its frames: {len(runs)} groups of {sum(runs)} tokens "
        f"for {len(expected)} frames of {sum(expected)}"
    )


def _check_turns(sample: TrainingSample, image_token_id: int) -> None:
    ends, ids = sample.turn_ends_K, sample.token_ids_T
    if not ends:
        return
    if ends[-1] != len(ids) or any(a >= b for a, b in zip((0, *ends), ends, strict=False)):
        raise DataError(f"sample {sample.id}: its turns end at {ends}, its tokens at {len(ids)}")
    if any(ids[end - 1] == ids[end] == image_token_id for end in ends[:-1]):
        raise DataError(f"sample {sample.id}: a turn ends inside an image")


def _turn_ends(trajectory: Trajectory) -> tuple[int, ...]:
    ends, at = [], 0
    for turn in trajectory.turns:
        at += len(turn.context_ids) + len(turn.completion.token_ids)
        ends.append(at)
    return tuple(ends)


def _logprobs(trajectory: Trajectory) -> tuple[float, ...]:
    out: list[float] = []
    for turn in trajectory.turns:
        said = turn.completion
        recorded = () if said.forced else said.logprobs
        out += [0.0] * len(turn.context_ids)
        out += recorded or [0.0] * len(said.token_ids)
    return tuple(out)


def _placeholder_lengths(token_ids: Sequence[int], image_token_id: int) -> list[int]:
    """Lengths of the runs of placeholders. Two frames always have text (a timestamp) between them."""
    lengths, before = [], -1
    for token in token_ids:
        if token == image_token_id:
            if before != image_token_id:
                lengths.append(0)
            lengths[-1] += 1
        before = token
    return lengths

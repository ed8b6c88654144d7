"""Samples: the one place where a trajectory becomes training data.

    deltas      P P P P P | A A A | O O O O | A A A          (P prompt, A sampled, O observation)
    loss_mask   0 0 0 0 0 | 1 1 1 | 0 0 0 0 | 1 1 1

Every invariant is checked for every sample, and a breach names the trajectory:
- mask and log-probs are as long as the tokens;
- groups of image placeholders are as many as the frames, each as long as its frame takes, in order;
- no placeholder is trained on; something is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import DataError
from ..core.nouns import Frame
from ..core.policy import Renderer
from ..core.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSample:
    """A token sequence that a policy saw and spoke; axis T tokens, F frames."""

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
    runs = _placeholder_lengths(sample.token_ids_T, image_token_id)
    expected = [renderer.frame_tokens(frame) for frame in sample.frames_F]
    if runs != expected:
        raise DataError(
            f"{where}: image placeholders do not fit its frames: {len(runs)} groups of {sum(runs)} tokens "
            f"for {len(expected)} frames of {sum(expected)}"
        )
    if any(m and t == image_token_id for t, m in zip(sample.token_ids_T, sample.loss_mask_T, strict=True)):
        raise DataError(f"{where}: an image placeholder is inside the loss mask")
    if not any(sample.loss_mask_T):
        raise DataError(f"{where}: nothing in it was sampled, so there is nothing to train on")


def _logprobs(trajectory: Trajectory) -> tuple[float, ...]:
    out: list[float] = []
    for turn in trajectory.turns:
        out += [0.0] * len(turn.context_ids)
        out += turn.completion.logprobs or [0.0] * len(turn.completion.token_ids)
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

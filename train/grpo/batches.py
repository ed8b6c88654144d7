"""Batches: from scored groups to what TRL's loss takes, the same number of batches on every process.

    trajectory --sample_of--> TrainingSample --advantages--> rows --SampleCollator--> Batch

TRL's own way (prompt and completion padded on two sides, images in a list beside them) drops the images of a whole
batch without a word when one sample's tokens disagree with them. Here a batch is what `SampleCollator` gives, checked
sample by sample, and the names that TRL's loss reads are views of it:

    prompt_ids (B, 1), completion_ids (B, T-1)       the first token, and all others
    completion_mask * tool_mask                      1 on what is trained on: what the policy sampled, and that alone
    advantages (B, T-1)                              by token, so that turns can have credit of their own

Rows may be split unevenly. Losses that divide by the rows of a batch are put right by a factor on the whole loss, its KL
and entropy terms too, so that the mean over a step is over its rows, wherever they lie (`row_factor`).

`observations=True` is for an ablation: all that stands behind the first sampled token is trained on, as if the policy
had said what the tools said (image placeholders never are).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from ...core.errors import DataError
from ...core.trajectory import Trajectory
from ..collate import NOT_FOR_THE_MODEL, SampleCollator
from ..samples import TrainingSample, sample_of
from .advantages import Scale, TurnCredit, evidence_gains, group_advantages, turn_advantages

BY_ROWS = frozenset({"grpo", "sapo", "dr_grpo", "luspo"})
"""Losses of TRL that divide by the number of rows of a batch."""


_TENSORS = ("sampled_BT", "trained_BT", "logprobs_BT", "advantages_BT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """B rows of T tokens."""

    ids: tuple[str, ...]
    """Of the trajectories."""
    model: dict[str, Any]
    """What the model's forward takes."""
    sampled_BT: Tensor
    """(B, T) bool: what the policy sampled."""
    trained_BT: Tensor
    """(B, T) bool: what is trained on; the same, but for an ablation."""
    logprobs_BT: Tensor
    """(B, T) float32: what the sampler said, 0 elsewhere."""
    advantages_BT: Tensor
    factor: float = 1.0
    """On the loss of this batch (`row_factor`)."""

    def to(self, device: torch.device) -> Batch:
        moved = send_to_device(self.model, device)  # features of frames lie in containers
        tensors = {n: getattr(self, n).to(device) for n in _TENSORS}
        return replace(self, model=moved, **tensors)

    def loss_inputs(self, items: float) -> dict[str, Any]:
        """What TRL's loss reads; `items` counts the trained tokens of the whole step over all processes."""
        ids = self.model["input_ids"]
        seen = self.model.get("attention_mask", torch.ones_like(ids))
        return {
            "batch": self,
            "prompt_ids": ids[:, :1],
            "prompt_mask": seen[:, :1],
            "completion_ids": ids[:, 1:],
            "completion_mask": seen[:, 1:],
            "tool_mask": self.trained_BT[:, 1:].long(),
            "advantages": self.advantages_BT[:, 1:],
            "sampling_per_token_logps": self.logprobs_BT[:, 1:],
            "num_items_in_batch": torch.tensor(items, dtype=torch.float32, device=ids.device),
        }


def samples_with_advantages(
    groups: Sequence[Sequence[Trajectory]],
    renderer: Any,
    scale: Scale,
    *,
    batch_std: float | None = None,
    credit: TurnCredit | None = None,
) -> list[TrainingSample]:
    """The samples of scored groups, each token with its advantage.

    Raises:
        DataError: a trajectory that breaks an invariant of samples; it is named.
    """
    rewards = [[_reward(t) for t in group] for group in groups]
    advantages = group_advantages(rewards, scale, batch_std)
    samples = []
    for group, outcome in zip(groups, advantages, strict=True):
        by_turn = [[a] * len(t.turns) for a, t in zip(outcome, group, strict=True)]
        if credit is not None:
            by_turn = turn_advantages(outcome, [evidence_gains(t) for t in group], credit)
        for trajectory, own in zip(group, by_turn, strict=True):
            sample = sample_of(trajectory, renderer, renderer.image_token_id)
            samples.append(replace(sample, advantages_T=_spread(trajectory, own)))
    return samples


def _reward(trajectory: Trajectory) -> float:
    if trajectory.reward is None:
        raise DataError(f"trajectory {trajectory.id} has not been scored")
    return trajectory.reward


def _spread(trajectory: Trajectory, advantages_K: Sequence[float]) -> tuple[float, ...]:
    out: list[float] = []
    for turn, advantage in zip(trajectory.turns, advantages_K, strict=True):
        out += [advantage] * (len(turn.context_ids) + len(turn.completion.token_ids))
    return tuple(out)


def split(samples: Sequence[TrainingSample], parts: int) -> list[list[TrainingSample]]:
    """`parts` lists of about as many rows, rows of similar length together; some may be empty."""
    ordered = sorted(samples, key=lambda s: (len(s.token_ids_T), s.id))
    size, more = divmod(len(ordered), parts)
    out, at = [], 0
    for i in range(parts):
        n = size + (i < more)
        out.append(ordered[at : at + n])
        at += n
    return out


def make_batch(
    samples: Sequence[TrainingSample],
    collator: SampleCollator,
    factor: float = 1.0,
    *,
    teaches: bool = True,
    observations: bool = False,
) -> Batch:
    """Collate; `factor` is for the loss. One that does not teach goes through the model with nothing to learn: a
    process that has no samples left must make as many passes as the others.

    Raises:
        DataError: images that do not fit their tokens; the sample is named.
    """
    inputs = collator(samples)
    shape = inputs["input_ids"].shape
    sampled, trained = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    logprobs, advantages = torch.zeros(shape), torch.zeros(shape)
    for row, sample in enumerate(samples if teaches else ()):
        n = len(sample.token_ids_T)
        sampled[row, :n] = torch.tensor(sample.loss_mask_T, dtype=torch.bool)
        trained[row, :n] = torch.tensor(_trained(sample, collator.renderer.image_token_id, observations))
        logprobs[row, :n] = torch.tensor(sample.logprobs_T)
        advantages[row, :n] = torch.tensor(sample.advantages_T)
    sampled[:, 0] = trained[:, 0] = False  # nothing stands before it
    model = {k: v for k, v in inputs.items() if k not in NOT_FOR_THE_MODEL}
    return Batch(
        ids=tuple(s.id for s in samples),
        model=model,
        sampled_BT=sampled,
        trained_BT=trained,
        logprobs_BT=logprobs,
        advantages_BT=advantages,
        factor=factor,
    )


def row_factor(loss_type: str, rows: int, batches: int, rows_everywhere: int) -> float:
    """What makes the mean over batches of means over their rows the mean over all rows.

    Args:
        rows: of this batch.
        batches: of the step, over all processes.
        rows_everywhere: of the step, over all processes.
    """
    return rows * batches / max(1, rows_everywhere) if loss_type in BY_ROWS else 1.0


def trained_tokens(samples: Sequence[TrainingSample], image_token_id: int, *, observations: bool = False) -> int:
    return sum(sum(_trained(s, image_token_id, observations)[1:]) for s in samples)


def _trained(sample: TrainingSample, image_token_id: int, observations: bool) -> list[bool]:
    """Which tokens count in the loss."""
    if not observations:
        return [bool(m) for m in sample.loss_mask_T]
    first = sample.loss_mask_T.index(1)
    return [i >= first and token != image_token_id for i, token in enumerate(sample.token_ids_T)]

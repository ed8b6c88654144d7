"""What a supervised run is: a value that a recipe returns, a command line changes, and `train.sft` carries out.

It says what is ours (data, weights of the loss, batches, what is frozen, how to choose the best checkpoint). What TRL's
`SFTConfig` or PEFT's `LoraConfig` has a name for is said in their words, in `trainer` and `adapter`, and goes there as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.codec import to_plain
from .weights import LossWeights

LANGUAGE_LINEARS = r".*(language_model|text_model).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""PEFT's `target_modules` for every linear layer of the language model, in all our families."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentEval:
    """The agent at work with the weights in training, on tasks that it is not trained on."""

    tasks: Path
    """A task file, or a folder with one."""
    limit: int = 28
    """So many tasks, spread over the kinds."""
    encoder: str = "embedded"
    """What clip indexes are embedded with, as for `VideoAgent`."""
    home: Path | None = None
    """Where indexes and frames are kept; None for playhead's own cache."""
    concurrent: int = 8
    """Episodes under way at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SFTRun:
    """One supervised run.

    Raises: ValueError: values that contradict each other, with the remedy.
    """

    recipe: str
    init: str
    """Checkpoint folder or hub id to start from."""
    data: tuple[Path, ...]
    """Folders of trajectories (`train.episodes`)."""
    out: Path
    """Gets state/ (to go on from), checkpoint/ (the result), curve.jsonl, curve.png and run.json."""
    weights: LossWeights = field(default_factory=LossWeights)
    batch_tokens: int = 8192
    """Tokens of a batch, padding counted; a sample that is longer is a batch by itself."""
    passes: float = 1.0
    """How often every sample is seen."""
    steps: int | None = None
    """Length of the run in optimiser steps, in place of `passes`."""
    max_tokens: int | None = None
    """Longer samples lose whole turns from their end."""
    packed: bool = False
    """Samples of a batch in one row, apart by their positions: for attention that reads them (flash_attention_2)."""
    held_out_every: int = 20
    """Every so-manieth sample is kept for measuring; 0 for none."""
    skip_bad: bool = False
    """Leave bad records out and count them, where otherwise the first one ends the run."""
    train_vision: bool = False
    """Whether the vision tower learns too. While it stands still, its features are computed once per frame and kept."""
    keep_features: bool = True
    """Use that; False to send pixels through the tower in every step (a large model's features fill the memory)."""
    adapter: Mapping[str, Any] | None = None
    """Arguments of PEFT's `LoraConfig`; None to train all weights."""
    merge: bool = True
    """Write the adapter into the weights at the end, so that checkpoint/ is an ordinary checkpoint."""
    four_bit: bool = False
    """QLoRA: NF4 weights under the adapter; needs a GPU and bitsandbytes."""
    dtype: str = "float32"
    """Of the weights in memory; `trainer` says what they are computed in (bf16)."""
    attention: str | None = None
    muon: float | None = None
    """Learning rate of Muon for the matrices of the layers; AdamW has the rest, at `learning_rate` of `trainer`."""
    decay: float | None = None
    """The learning rate rises over `warmup_steps`, stays, and falls towards zero over this share of the run; None for the
    `lr_scheduler_type` of `trainer`."""
    agent_eval: AgentEval | None = None
    measure_every: int = 100
    """Steps between measurements (held-out loss, agent); the state is saved with each."""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of TRL's `SFTConfig`."""

    def __post_init__(self) -> None:
        if self.four_bit and self.adapter is None:
            raise ValueError("4-bit weights cannot be trained themselves: give an adapter, or four_bit=False")
        if self.four_bit and self.merge:
            raise ValueError("an adapter is merged into full weights, not into 4-bit ones: merge=False, then `train merge`")
        if self.muon is not None and self.adapter is not None:
            raise ValueError("Muon is for full matrices, not for adapters: muon=None")
        if self.agent_eval is not None and not self.held_out_every:
            raise ValueError("an agent eval goes with a held-out loss: give held_out_every")
        if self.measure_every < 1 or self.batch_tokens < 1 or self.passes <= 0 or (self.steps is not None and self.steps < 1):
            raise ValueError("measure_every, batch_tokens, passes and steps must be positive")
        if self.held_out_every == 1 or self.held_out_every < 0:
            raise ValueError("held_out_every must be 0 (hold nothing out) or at least 2")

    @property
    def state_dir(self) -> Path:
        return self.out / "state"

    @property
    def checkpoint_dir(self) -> Path:
        return self.out / "checkpoint"

    @property
    def adapter_dir(self) -> Path:
        return self.out / "adapter"

    def plain(self) -> dict[str, Any]:
        """The run as JSON values, for people and for `run.json`."""
        return _with_text_paths(to_plain(self))


def _with_text_paths(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {k: _with_text_paths(v) for k, v in value.items()}
    return [_with_text_paths(v) for v in value] if isinstance(value, list) else value

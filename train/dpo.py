"""Preferences: TRL's `DPOTrainer` over our own samples.

    playhead train dpo --data SET --init CHECKPOINT --out DIR

TRL can carry multi-turn episodes with frames, but not by its own data path (it takes frames in the prompt alone, and
text for the rest). So two things are ours: the dataset is the numbers of the pairs, left as it is
(`_prepare_dataset`), and the collator turns pairs into rows, all chosen ones and then all rejected ones, through the
collator that SFT and RL use (`collate.SampleCollator`). The tokens are those that were sampled, `completion_mask` is
our loss mask (tool tokens, frames and prompts are 0), and every frame of the episode goes through the forward pass.
The losses are TRL's, by our names:

    sigmoid              DPO (Rafailov et al. 2023)
    length_normalised    each side's log-ratio divided by its tokens (TRL `sigmoid_norm`; Tulu 3)
    length_desensitised  tokens beyond the shorter side's length count half (TRL `ld_alpha`; LD-DPO)
    regularised          DPO + 0.2 times the chosen side's negative log-likelihood (TRL `sigmoid` and `sft`; RPO)
    ipo                  squared distance of the mean log-ratios from 1 / (2 beta) (IPO)

`refined` leaves the tokens that both sides share from the beginning out of the masks: the reward is on what differs
(the refined half of RRPO; its other half, a token-wise KL to the reference, TRL does not have; `regularised` is the
nearest to it).

The reference is the checkpoint itself: a frozen copy, or the weights under the adapter. A run that was stopped goes on.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from ..agent.policies.loading import LoadOptions, load_checkpoint, load_renderer
from ..agent.profile import PROFILE_FILE, load_profile, save_profile
from ..agent.renderers.chat import ChatRenderer
from ..core.codec import to_plain
from ..core.errors import DataError, ModelError, PlayheadError
from ..core.frames import FrameStore
from ..core.trajectory import Trajectory
from ..core.whole import write_json
from .claim import claim
from .collate import IGNORED, SampleCollator
from .curves import save_curves
from .episodes import FRAMES, Stores, checked_sample
from .features import VisionFeatures
from .pairs import Pair, PairRules, Pairs, make_pairs, read_groups
from .reporting import check_reporters
from .samples import TrainingSample, sample_of
from .sft import last_state

PANELS = (
    ("loss", (("loss", "training"), ("eval_loss", "held out"))),
    ("margin of rewards", (("rewards/margins", "training"), ("eval_rewards/margins", "held out"))),
    ("share of pairs in order", (("rewards/accuracies", "training"), ("eval_rewards/accuracies", "held out"))),
    ("log-probability", (("logps/chosen", "chosen"), ("logps/rejected", "rejected"))),
)
"""As `curves.save_curves` takes them."""


class Loss(str, Enum):
    """What is minimised; see the module."""

    SIGMOID = "sigmoid"
    LENGTH_NORMALISED = "length_normalised"
    LENGTH_DESENSITISED = "length_desensitised"
    REGULARISED = "regularised"
    IPO = "ipo"

    @property
    def arguments(self) -> dict[str, Any]:
        """Of `DPOConfig`. Betas differ: a mean over tokens is smaller than a sum."""
        return {
            "sigmoid": {"loss_type": ["sigmoid"], "beta": 0.1},
            "length_normalised": {"loss_type": ["sigmoid_norm"], "beta": 5.0},
            "length_desensitised": {"loss_type": ["sigmoid"], "ld_alpha": 0.5, "beta": 0.1},
            "regularised": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2], "beta": 0.1},
            "ipo": {"loss_type": ["ipo"], "beta": 0.1},
        }[self.value]


@dataclass(frozen=True, kw_only=True, slots=True)
class DPORun:
    """One preference run. What TRL's `DPOConfig` has a name for goes into `trainer`, in its words.

    Raises:
        ValueError: numbers that are not positive, or held_out_every of 1.
    """

    init: str
    """Checkpoint folder or hub id: start and reference."""
    data: tuple[Path, ...]
    """Folders with groups of episodes (`playhead collect --n 4`)."""
    out: Path
    """Gets state/, checkpoint/ (the result), pairs.json, curve.jsonl, curve.png and run.json."""
    rules: PairRules = field(default_factory=PairRules)
    loss: Loss = Loss.SIGMOID
    beta: float | None = None
    """Instead of the loss's own."""
    refined: bool = False
    passes: float = 1.0
    steps: int | None = None
    """Optimiser steps, in place of `passes`."""
    pairs_a_batch: int = 4
    learning_rate: float = 1e-5
    max_tokens: int | None = None
    """Pairs with a longer side are left out, and counted: half an episode would lose what makes the difference."""
    held_out_every: int = 10
    """Every so-manieth task is kept for measuring; 0 for none."""
    measure_every: int = 50
    """Steps between measurements; the state is saved with each."""
    train_vision: bool = False
    skip_bad: bool = False
    """Leave bad records out and count them; else the first one ends the run before it begins."""
    adapter: Mapping[str, Any] | None = None
    """Arguments of PEFT's `LoraConfig`; None to train all weights."""
    dtype: str = "float32"
    trainer: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (
            self.passes <= 0
            or min(self.pairs_a_batch, self.measure_every, self.steps or 1) < 1
            or self.learning_rate <= 0
        ):
            raise ValueError("passes, steps, pairs_a_batch, measure_every and learning_rate must be positive")
        if self.held_out_every == 1 or self.held_out_every < 0:
            raise ValueError("held_out_every must be 0 (hold nothing out) or at least 2")

    @property
    def state_dir(self) -> Path:
        return self.out / "state"

    @property
    def checkpoint_dir(self) -> Path:
        return self.out / "checkpoint"


@dataclass(frozen=True, slots=True)
class SamplePair:
    """A pair as samples."""

    chosen: TrainingSample
    rejected: TrainingSample


class PairCollator:
    """Numbers of pairs to model inputs: rows of all chosen ones, then of all rejected ones, in the order of the pairs.

    `completion_mask` (2B, T) is 1 on the tokens that the policy sampled; with `refined` only from where the two differ.
    """

    def __init__(self, pairs: Sequence[SamplePair], inner: SampleCollator, *, refined: bool = False) -> None:
        self._pairs, self._inner, self._refined = pairs, inner, refined

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        chosen = [self._pairs[row["pair"]].chosen for row in rows]
        rejected = [self._pairs[row["pair"]].rejected for row in rows]
        inputs = self._inner([*chosen, *rejected])
        mask = (inputs.pop("labels") != IGNORED).long()
        del inputs["loss_weights"]
        if self._refined:
            for i, (one, other) in enumerate(zip(chosen, rejected, strict=True)):
                shared = shared_beginning(one.token_ids_T, other.token_ids_T)
                mask[i, :shared] = mask[i + len(rows), :shared] = 0
        inputs["completion_mask"] = mask
        for name in ("ref_chosen_logps", "ref_rejected_logps"):  # where TRL has computed them before
            if name in rows[0]:
                inputs[name] = torch.tensor([float(row[name]) for row in rows])
        return inputs


def shared_beginning(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common from the start."""
    differ = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


class PairTrainer(DPOTrainer):
    """TRL's trainer over rows that are prepared already."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        """Nothing here reaches for a network."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's card is about a hub repository; `run.json` says what was done here."""


def train_dpo(run: DPORun, *, resume: bool = True) -> dict[str, Any]:
    """Carry out a run; the counts of its pairs, what it measured last, and where the result is.

    Raises:
        DataError: bad data, no pair, or `out` holds a run of other settings.
        ModelError: the model cannot be had, or TRL refuses the arguments.
    """
    check_reporters(run.trainer.get("report_to"))
    made, skipped = _pairs(run, load_renderer(run.init))
    last = last_state(run.state_dir)
    with claim(run.out, _plain(run), begun=last is not None, resume=resume, may_differ=("out", "measure_every", "skip_bad")):
        return _train(run, made, skipped, last)


def _train(run: DPORun, made: Pairs, skipped: list[str], last: Path | None) -> dict[str, Any]:
    options = LoadOptions(dtype=run.dtype)  # pyright: ignore[reportArgumentType]
    model, renderer = load_checkpoint(run.init, "cpu", options)
    train, held_out, dropped = _samples(run, made, renderer)
    counts = {
        **made.plain(), "bad_records_skipped": len(skipped), "too_long": dropped, "trained": len(train),
        "held_out": len(held_out),
    }  # fmt: skip
    write_json(run.out / "pairs.json", counts)
    trainer = _trainer(run, model, renderer, train, held_out)
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    _write_result(run, trainer, renderer)
    history = trainer.state.log_history
    measured = {k: v for entry in history for k, v in entry.items() if k.startswith(("eval_", "loss", "rewards/"))}
    return {**counts, **measured, "checkpoint": str(run.checkpoint_dir)}


def _pairs(run: DPORun, renderer: ChatRenderer) -> tuple[Pairs, list[str]]:
    """(the pairs of all episodes that this model can take, what was wrong with each record that was skipped)."""
    store, skipped = _store(run), list[str]()

    def check(trajectory: Trajectory, where: str) -> None:
        checked_sample(trajectory, renderer, store, where)

    def on_bad(error: PlayheadError) -> None:
        if not run.skip_bad:
            raise error
        skipped.append(str(error))

    return make_pairs(read_groups(run.data, check=check, on_bad=on_bad), run.rules), skipped


def _store(run: DPORun) -> Stores:
    return Stores(tuple(FrameStore((f if f.is_dir() else f.parent) / FRAMES) for f in run.data))


def _samples(run: DPORun, made: Pairs, renderer: ChatRenderer) -> tuple[list[SamplePair], list[SamplePair], int]:
    """(to train on, held out by task, how many pairs were too long)."""
    tasks = sorted({pair.chosen.task.id for pair in made.pairs})
    kept_out = set(tasks[:: run.held_out_every]) if run.held_out_every else set()
    train: list[SamplePair] = []
    held_out: list[SamplePair] = []
    dropped = 0
    for pair in made.pairs:
        both = _sample_pair(pair, renderer)
        longest = max(len(both.chosen.token_ids_T), len(both.rejected.token_ids_T))
        if run.max_tokens is not None and longest > run.max_tokens:
            dropped += 1
        else:
            (held_out if pair.chosen.task.id in kept_out else train).append(both)
    if not train:
        raise DataError(
            f"{', '.join(map(str, run.data))}: no pair to train on ({made.groups} groups, {dropped} pairs too long, "
            f"{len(held_out)} held out); collect more episodes of a task (--n 8) at a temperature above 0"
        )
    return train, held_out, dropped


def _sample_pair(pair: Pair, renderer: ChatRenderer) -> SamplePair:
    chosen, rejected = (sample_of(t, renderer, renderer.image_token_id) for t in (pair.chosen, pair.rejected))
    return SamplePair(chosen, rejected)


def _trainer(
    run: DPORun,
    model: Any,
    renderer: ChatRenderer,
    train: Sequence[SamplePair],
    held_out: Sequence[SamplePair],
) -> PairTrainer:
    args = _arguments(run, bool(held_out))
    reference = copy.deepcopy(model).eval().requires_grad_(False) if run.adapter is None else None
    features = None
    if not run.train_vision and hasattr(model.model, "visual"):
        model.model.visual.requires_grad_(False)
        features = VisionFeatures(model.to(args.device), renderer)
    collator = SampleCollator(renderer, _store(run), features=features)
    both = [*train, *held_out]
    trainer = PairTrainer(
        model=model,
        ref_model=reference,
        args=args,
        data_collator=PairCollator(both, collator, refined=run.refined),
        train_dataset=Dataset.from_dict({"pair": list(range(len(train)))}),
        eval_dataset=Dataset.from_dict({"pair": list(range(len(train), len(both)))}) if held_out else None,
        processing_class=renderer.processor,
        peft_config=_lora(run),
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, where results go; the figures are in curve.jsonl
    return trainer


def _arguments(run: DPORun, measures: bool) -> DPOConfig:
    cpu = not torch.cuda.is_available()
    chosen: dict[str, Any] = {
        "use_cpu": cpu,
        "bf16": not cpu,
        "gradient_checkpointing": not cpu,
        "learning_rate": run.learning_rate,
        "warmup_steps": 0.05,
        "logging_steps": 5,
        "save_total_limit": 2,
        "report_to": "none",
        "ddp_find_unused_parameters": False,
        **run.loss.arguments,
        **({} if run.beta is None else {"beta": run.beta}),
        **run.trainer,
    }
    ours: dict[str, Any] = {
        "output_dir": str(run.state_dir),
        "num_train_epochs": run.passes,
        "max_steps": run.steps or -1,
        "per_device_train_batch_size": run.pairs_a_batch,
        "per_device_eval_batch_size": run.pairs_a_batch,
        "remove_unused_columns": False,
        "max_length": None,
        "eval_strategy": "steps" if measures else "no",
        "eval_steps": run.measure_every,
        "eval_on_start": measures,
        "save_strategy": "steps",
        "save_steps": run.measure_every,
        "disable_tqdm": True,
    }
    try:
        return DPOConfig(**{**chosen, **ours})
    except (TypeError, ValueError, ImportError) as error:
        raise ModelError(f"TRL refuses the trainer arguments: {str(error).splitlines()[0]}") from None


def _lora(run: DPORun) -> Any:
    if run.adapter is None:
        return None
    from peft import LoraConfig

    return LoraConfig(**{"task_type": "CAUSAL_LM", **run.adapter})


def _write_result(run: DPORun, trainer: PairTrainer, renderer: ChatRenderer) -> None:
    """checkpoint/, an ordinary checkpoint with processor and profile, and the curves."""
    if trainer.is_fsdp_enabled:
        plugin: Any = trainer.accelerator.state.fsdp_plugin
        plugin.set_state_dict_type("FULL_STATE_DICT")
    if run.adapter is None:
        trainer.save_model(str(run.checkpoint_dir))
    elif trainer.is_world_process_zero():
        trainer.accelerator.unwrap_model(trainer.model).merge_and_unload().save_pretrained(run.checkpoint_dir)
    if trainer.is_world_process_zero():
        renderer.processor.save_pretrained(run.checkpoint_dir)
        if (Path(run.init) / PROFILE_FILE).is_file():
            save_profile(load_profile(Path(run.init)), run.checkpoint_dir)
        save_curves(trainer.state.log_history, run.out, PANELS)
    trainer.accelerator.wait_for_everyone()


def _plain(run: DPORun) -> dict[str, Any]:
    return json.loads(json.dumps(to_plain(run), default=str))

"""Supervised fine-tuning on TRL's `SFTTrainer`: a run (`sft_run.SFTRun`) carried out.

    playhead train sft --recipe embedded_cpu --data DIR --init DIR --out DIR

What is trained on is what was seen: samples with the tokens as recorded (`samples`), pixels by content (`collate`), loss on
sampled tokens alone, weighted (`weights`), batches in an order that the seed gives (`packing`). Optimiser, schedule, states,
logging and several GPUs are TRL's, transformers' and accelerate's. A run that was stopped goes on where its last saved state
is, with the batches that it would have seen.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl.trainer.sft_config import SFTConfig

from ..agent.policies.loading import LoadOptions, load_checkpoint
from ..agent.profile import PROFILE_FILE, load_profile, save_profile
from ..agent.renderers.chat import ChatRenderer
from ..core.errors import DataError, ModelError
from ..core.tasks import read_tasks
from .agent_eval import evaluate_agent
from .claim import claim
from .collate import SampleCollator
from .curves import save_curves
from .episodes import Episodes, read_episodes
from .features import VisionFeatures
from .packing import Batch, in_order, plan
from .reporting import check_reporters
from .samples import TrainingSample, truncate_all
from .sft_run import SFTRun
from .sft_trainer import ROWS, SCORE, RowCollator, WeightedSFT
from .weights import Weigher

_LOG = logging.getLogger("playhead")
OURS_TO_CHANGE = frozenset({"report_to", "ddp_timeout", "ddp_find_unused_parameters", "save_total_limit", "disable_tqdm"})
"""What a recipe may set although the run has a value of its own for it."""


def train_sft(run: SFTRun, *, resume: bool = True) -> dict[str, Any]:
    """Carry out a run; what it measured last, and where the result is.

    Raises:
        DataError: bad data, or `out` holds a run of other settings.
        ModelError: the model cannot be had, or this machine cannot do what the run asks.
    """
    if run.agent_eval is not None and not read_tasks(run.agent_eval.tasks):
        raise DataError(f"{run.agent_eval.tasks}: no task to evaluate the agent on")
    check_reporters(run.trainer.get("report_to"))
    begun = last_state(run.state_dir) is not None
    with claim(run.out, run.plain(), begun=begun, resume=resume, may_differ=("out", "measure_every")):
        return _train(run, resume)


def _train(run: SFTRun, resume: bool) -> dict[str, Any]:
    model, renderer = _load(run)
    if not run.train_vision:
        _vision(model).requires_grad_(False)
    episodes = read_episodes(run.data, renderer, skip_bad=run.skip_bad)
    train, held_out, counts = _prepared(run, episodes, renderer)
    trainer = _trainer(run, model, renderer, episodes, train, held_out)
    last = last_state(run.state_dir) if resume else None
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    measured = _write_result(run, trainer, renderer) | _compared(trainer)
    return {**counts, **measured, "checkpoint": str(run.checkpoint_dir if _ends_whole(run) else run.adapter_dir)}


def last_state(folder: Path) -> Path | None:
    """The newest complete state of a run. `trainer_state.json` is written last, so one that lacks it was cut off."""
    found = [p.parent for p in folder.glob("checkpoint-*/trainer_state.json")]
    return max(found, key=lambda p: int(p.name.rpartition("-")[2]), default=None)


def _load(run: SFTRun) -> tuple[Any, ChatRenderer]:
    device = "cpu"  # the trainer moves or shards the model itself
    if run.four_bit:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    options = LoadOptions(dtype=run.dtype, attention=run.attention, four_bit=run.four_bit)  # pyright: ignore[reportArgumentType]
    model, renderer = load_checkpoint(run.init, device, options)
    if run.four_bit:
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return model, renderer


def _vision(model: Any) -> torch.nn.Module:
    """The vision tower with what maps its output to the language model."""
    inner = model.model
    if model.config.model_type == "smolvlm":
        return torch.nn.ModuleList([inner.vision_model, inner.connector])
    return inner.visual


def _prepared(
    run: SFTRun, episodes: Episodes, renderer: ChatRenderer
) -> tuple[tuple[TrainingSample, ...], tuple[TrainingSample, ...], dict[str, int]]:
    """(to train on, held out, what was left out), cut to length, with their weights."""
    counts = {"bad_records_skipped": len(episodes.skipped), "turns_dropped": 0, "samples_dropped": 0}
    if run.max_tokens is not None:
        cut = truncate_all(episodes.samples, run.max_tokens, renderer, renderer.image_token_id)
        counts |= {"turns_dropped": cut.turns_dropped, "samples_dropped": cut.samples_dropped}
        if not cut.samples:
            raise DataError(f"no sample has a trained turn within {run.max_tokens} tokens; raise max_tokens")
        episodes.samples = cut.samples
    weigh = Weigher(run.weights, renderer)
    train, held_out = (tuple(map(weigh, part)) for part in episodes.split(run.held_out_every))
    if not train:
        raise DataError(f"{len(held_out)} samples, all held out; give more, or held_out_every=0")
    return train, held_out, {**counts, "samples": len(train), "held_out": len(held_out)}


def _trainer(
    run: SFTRun,
    model: Any,
    renderer: ChatRenderer,
    episodes: Episodes,
    train: Sequence[TrainingSample],
    held_out: Sequence[TrainingSample],
) -> WeightedSFT:
    args = _arguments(run, bool(held_out))
    batches, steps = _plan(run, args, [len(s.token_ids_T) for s in train])
    if run.decay is not None:
        args.lr_scheduler_type = "warmup_stable_decay"
        args.lr_scheduler_kwargs = {
            "num_decay_steps": round(run.decay * steps), "decay_type": "linear", "min_lr_ratio": 0.02
        }  # fmt: skip
    measured = in_order([len(s.token_ids_T) for s in held_out], run.batch_tokens, packed=run.packed)
    features = None
    if run.keep_features and not run.train_vision:
        features = VisionFeatures(model.to(args.device), renderer)
    collator = SampleCollator(renderer, episodes.store, pack=run.packed, features=features)
    agent = None
    if run.agent_eval is not None:
        wanted, profile = run.agent_eval, load_profile(Path(run.init))
        agent = lambda inner, accelerator: evaluate_agent(inner, renderer, wanted, profile, accelerator)  # noqa: E731
    lora = _lora(run)
    try:
        return WeightedSFT(
            model=model,
            args=args,
            data_collator=RowCollator(train, held_out, collator),
            train_dataset=Dataset.from_dict({ROWS: [list(b) for b in batches]}),
            eval_dataset=Dataset.from_dict({ROWS: [[i + len(train) for i in b] for b in measured]}) if measured else None,
            processing_class=renderer.processor,
            peft_config=lora,
            agent=agent,
            muon=run.muon,
        )
    except (RuntimeError, ImportError) as error:  # a logger that is not installed, for instance
        raise ModelError(f"recipe {run.recipe}: the trainer cannot be made ({str(error).splitlines()[0]})") from error


def _plan(run: SFTRun, args: SFTConfig, lengths: Sequence[int]) -> tuple[list[Batch], int]:
    """(the batches of the run, its steps); the last step is filled up from one more pass."""
    share = args.gradient_accumulation_steps * args.world_size
    batches = plan(lengths, run.batch_tokens, run.passes, args.seed, packed=run.packed)
    steps = run.steps or math.ceil(len(batches) / share)
    passes = run.passes
    while len(batches) < steps * share:
        passes *= 2
        batches = plan(lengths, run.batch_tokens, math.ceil(passes), args.seed, packed=run.packed)
    return batches[: steps * share], steps


def _arguments(run: SFTRun, measures: bool) -> SFTConfig:
    both = measures or run.agent_eval is not None
    ours: dict[str, Any] = {
        "output_dir": str(run.state_dir),
        "num_train_epochs": 1,
        "per_device_train_batch_size": 1,  # a row of the plan is a batch
        "per_device_eval_batch_size": 1,
        "train_sampling_strategy": "sequential",
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "remove_unused_columns": False,
        "max_length": None,
        "eval_strategy": "steps" if both else "no",
        "eval_steps": run.measure_every,
        "eval_on_start": both,
        "prediction_loss_only": True,
        "save_strategy": "steps",
        "save_steps": run.measure_every,
        "save_total_limit": 2,
        "load_best_model_at_end": both,
        "metric_for_best_model": SCORE if run.agent_eval is not None else "eval_loss",
        "greater_is_better": run.agent_eval is not None,
        "report_to": "none",
        "ddp_timeout": 4 * 3600,  # the other processes wait while one runs the agent
        # A batch without frames leaves a tower that learns without gradients.
        "ddp_find_unused_parameters": run.train_vision,
        "disable_tqdm": True,
    }
    refused = sorted(set(run.trainer) & (set(ours) - OURS_TO_CHANGE))
    if refused:
        raise DataError(f"trainer arguments {', '.join(refused)}: set by the run itself; see the fields of SFTRun")
    try:
        return SFTConfig(**{**ours, **run.trainer})
    except (TypeError, ValueError, ImportError) as error:
        raise ModelError(f"recipe {run.recipe}: TRL refuses the trainer arguments: {str(error).splitlines()[0]}") from None


def _lora(run: SFTRun) -> Any:
    if run.adapter is None:
        return None
    if find_spec("peft") is None:
        raise ModelError("adapters need peft: pip install 'playhead[adapters]'")
    from peft import LoraConfig

    return LoraConfig(**{"task_type": "CAUSAL_LM", **run.adapter})


def _ends_whole(run: SFTRun) -> bool:
    return run.adapter is None or run.merge


def _write_result(run: SFTRun, trainer: WeightedSFT, renderer: ChatRenderer) -> dict[str, float]:
    """Write checkpoint/ (and adapter/), the curves; returns the last of every measurement."""
    if trainer.is_fsdp_enabled:
        plugin = trainer.accelerator.state.fsdp_plugin
        assert plugin is not None
        plugin.set_state_dict_type("FULL_STATE_DICT")
    if run.adapter is not None:
        trainer.save_model(str(run.adapter_dir))
    if run.adapter is None:
        trainer.save_model(str(run.checkpoint_dir))
    elif run.merge and trainer.is_world_process_zero():
        merged = trainer.accelerator.unwrap_model(trainer.model).merge_and_unload()
        merged.save_pretrained(run.checkpoint_dir)
    if trainer.is_world_process_zero():
        history = trainer.state.log_history
        save_curves(history, run.out)
        if _ends_whole(run):
            renderer.processor.save_pretrained(run.checkpoint_dir)
            if (Path(run.init) / PROFILE_FILE).is_file():
                save_profile(load_profile(Path(run.init)), run.checkpoint_dir)
    trainer.accelerator.wait_for_everyone()
    return {k: v for entry in trainer.state.log_history for k, v in entry.items() if k.startswith(("eval_", "loss"))}


def _compared(trainer: WeightedSFT) -> dict[str, float]:
    """Which step's weights were chosen, by which measurement, and what that was before the first step; {} without one.

    The beginning is measured but never chosen: what comes out has been trained. Where all of it was worse, a warning says so.
    """
    name, best = trainer.args.metric_for_best_model, trainer.state.best_metric
    before = next((e[name] for e in trainer.state.log_history if name in e and e.get("step") == 0), None)
    if best is None or before is None:
        return {}
    step = trainer.state.best_global_step or 0
    if (before > best) == bool(trainer.args.greater_is_better) and before != best and trainer.is_world_process_zero():
        _LOG.warning(
            "no measurement was better than that before the first step (%s %.4f, then at best %.4f): checkpoint/ holds the "
            "weights of step %d, and those that the run began with are better", name, before, best, step,
        )  # fmt: skip
    return {"best_step": step, "best_measure": best, "measure_before": before}

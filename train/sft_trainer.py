"""TRL's `SFTTrainer` with our forward, our weights, and the agent among its measurements.

The trainer's dataset is the plan of a run, a row for each batch; its loss is

    sum over trained tokens of  weight * -log p      /      sum of weights

over all batches of a step and all processes, so it does not depend on how they share the work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from trl.trainer.sft_trainer import SFTTrainer

from .agent_eval import AgentScores
from .collate import IGNORED, SampleCollator, score
from .optimizers import MuonAndAdamW
from .samples import TrainingSample

ROWS = "samples"
"""The one column of the trainer's dataset: indices of a batch."""
SCORE = "eval_agent_score"
TIE = 1e-3
"""What a nat of held-out loss counts against accuracy, which on a few tasks is often the same twice."""


class RowCollator:
    """A row of the plan (a batch of sample numbers) to model inputs."""

    def __init__(self, train: Sequence[TrainingSample], held_out: Sequence[TrainingSample], inner: SampleCollator) -> None:
        self._samples = (*train, *held_out)
        self._inner = inner

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return self._inner([self._samples[i] for row in rows for i in row[ROWS]])


class WeightedSFT(SFTTrainer):
    """See the module.

    Args:
        agent: the scores of the agent with the weights of (a model, its accelerator); None for the held-out loss alone.
        muon: learning rate of Muon; None for TRL's optimisers.
    """

    loss_is_scaled_for_ga = True  # `compute_loss` divides by the weights of the whole step

    def __init__(
        self,
        *args: Any,
        agent: Callable[[Any, Any], AgentScores] | None = None,
        muon: float | None = None,
        **kwargs: Any,
    ) -> None:
        self._agent, self._muon = agent, muon
        self._sums: dict[str, dict[str, Any]] = {"train": defaultdict(float), "eval": defaultdict(float)}
        super().__init__(*args, **kwargs)

    def _send_telemetry(self) -> None:
        """Nothing here reaches for a network."""

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self._muon is None or self.optimizer is not None:
            return super().create_optimizer(model)
        chosen: Any = self.model if model is None else model
        self.optimizer = MuonAndAdamW(chosen, self._muon, self.args.learning_rate)
        return self.optimizer

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor:
        """The sum of the weights over a step: all its batches, all processes."""
        total = sum((b["loss_weights"].sum() for b in batch_samples), torch.zeros(())).to(device)
        return self._over_processes(total)

    def _over_processes(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.args.world_size == 1:
            return values
        total = self.accelerator.reduce(values, "sum")
        assert isinstance(total, Tensor)
        return total

    @property
    def _mode(self) -> str:
        assert self.model is not None
        return "train" if self.model.training else "eval"

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        weights_BT, trained_BT = inputs["loss_weights"], inputs["labels"] != IGNORED
        scores = score(model, inputs, where=trained_BT)
        total = weights_BT.sum() if num_items_in_batch is None else num_items_in_batch
        # A sum, not a mean: processes average their gradients, so each one's share counts as often as there are processes.
        loss = -(scores.logprobs_BT * weights_BT).sum() / total.clamp(min=1e-6)
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        sums = self._sums[self._mode]
        sums["nll"] -= scores.logprobs_BT.detach().sum()
        sums["right"] += scores.likeliest_BT.sum()
        sums["tokens"] += trained_BT.sum()
        sums["weighted"] -= (scores.logprobs_BT.detach() * weights_BT).sum()
        sums["weights"] += weights_BT.sum()
        sums["seen"] += inputs["input_ids"].numel()
        return (loss, {"logprobs": scores.logprobs_BT}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = self._mode
        prefix = "" if mode == "train" else "eval_"
        if self._sums[mode] and (mode == "train" or "eval_loss" in logs):
            logs.update({prefix + name: value for name, value in self._means(mode).items()})
        super().log(logs, start_time)

    def _means(self, mode: str) -> dict[str, float]:
        """Means over the tokens since the last log, of all processes; forgets them."""
        names = sorted(self._sums[mode])
        sums = torch.tensor([float(self._sums[mode][n]) for n in names], device=self.args.device)
        total = dict(zip(names, self._over_processes(sums).tolist(), strict=True))
        self._sums[mode].clear()
        tokens = max(1.0, total["tokens"])
        means = {"nll": total["nll"] / tokens, "token_accuracy": total["right"] / tokens, "tokens": total["seen"]}
        return means if mode == "train" else {**means, "loss": total["weighted"] / max(1e-6, total["weights"])}

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Held-out loss, then the agent; what both say goes into the choice of the best checkpoint."""
        metrics = super().evaluate(*args, **kwargs)
        last = self.state.log_history[-1] if self.state.log_history else {}
        metrics |= {k: v for k, v in last.items() if k in ("eval_loss", "eval_nll", "eval_token_accuracy")}
        if self._agent is None:
            return metrics
        scores = self._agent(self.accelerator.unwrap_model(self.model), self.accelerator)
        said = {f"eval_agent_{name}": value for name, value in scores.plain().items()}
        said[SCORE] = scores.accuracy - TIE * metrics.get("eval_nll", 0.0)
        self.log(dict(said))
        return metrics | said

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's card is about a hub repository; `run.json` says what was done here."""

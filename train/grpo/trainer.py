"""AgentGRPOTrainer: TRL's GRPO with our rollouts and our forward pass.

    trainer = AgentGRPOTrainer(agent, tasks, plan)
    trainer.train()                       # goes on from the last whole checkpoint in plan.args.output_dir

TRL keeps the loss in all its variants, the optimiser, accumulation, processes, checkpoints. Three of its methods are
replaced:

    _prepare_inputs                         the batches of a step come from `Collector`: episodes of the real agent
    _get_per_token_logps_and_entropies      the forward takes exactly what `SampleCollator` made, tools' frames too
    _save_checkpoint                        the curriculum's state goes beside the weights, last of all

Invariants: what is trained on is what was sampled, token by token; at the weights of the sampler, the trainer's
log-probs are the sampler's (checked in every step, `guards`); every process makes the same number of forward passes;
a resumed run is the uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback
from trl.trainer.grpo_trainer import GRPOTrainer

from ...agent.profile import save_profile
from ...agent.video_agent import VideoAgent
from ...core.nouns import Task
from ..collate import SampleCollator
from ..rollout import check_exact
from .batches import Batch
from .collect import Collector, Round
from .crew import Crew
from .curriculum import Curriculum
from .guards import Guards
from .plan import Correction, Plan, PlanError
from .records import Records, last_checkpoint, read_state, write_state
from .weights import SameModule, WeightSync


class AgentGRPOTrainer(GRPOTrainer):
    """Trains the model of an agent's policy.

    Args:
        agent: its policy is exact, samples at `plan.args.temperature`, and runs the model that is trained, or a
            replica of it.
        tasks: what it is asked.
        plan: everything else.
        model: the trained model, where the agent runs a replica.
        sync: how the sampler gets the trainer's weights; None: it runs the same module.
        collator: None for one that reads the frames of the agent's store.

    Raises:
        ModelError: the policy is not exact.
        PlanError: the agent cuts off part of the distribution (top_p).
        DataError: no tasks.
    """

    def __init__(
        self,
        agent: VideoAgent,
        tasks: Sequence[Task],
        plan: Plan,
        *,
        model: Any = None,
        sync: WeightSync | None = None,
        collator: SampleCollator | None = None,
        **kwargs: Any,
    ) -> None:
        check_exact(agent.policy)
        if agent.top_p != 1.0:
            raise PlanError(
                f"the agent samples with top_p={agent.top_p}: rollouts must come from the whole distribution, whose log-probs "
                "the loss computes; make the agent with top_p=1.0"
            )
        agent.temperature = plan.args.temperature
        self.agent, self.plan = agent, plan
        renderer: Any = agent.policy.renderer
        rows = Dataset.from_dict({"prompt": [f"slot {i}" for i in range(max(2, plan.groups) * 64)]})
        super().__init__(
            model=model if model is not None else agent.policy.model,  # pyright: ignore[reportAttributeAccessIssue]
            reward_funcs=_scored_elsewhere,  # pyright: ignore[reportArgumentType]
            args=plan.args,
            train_dataset=rows,
            processing_class=renderer.processor,
            **kwargs,
        )
        self.sync: WeightSync = sync or SameModule(agent.policy)
        self.curriculum = Curriculum(tasks, plan.args.seed, plan.curriculum)
        crew = Crew(self.accelerator.process_index, self.accelerator.num_processes)
        self.guards = Guards(plan.limits)
        self.records = Records(Path(str(plan.args.output_dir)), plan, crew)
        self.collector = Collector(
            agent, collator or SampleCollator(renderer, agent.store), self.curriculum, plan, crew
        )
        self._batches: list[dict[str, Any]] | None = None
        self._running: Batch | None = None
        """The batch whose forward pass is under way."""
        self._logps: Tensor | None = None
        self.add_callback(_Watch(self))

    def train(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> Any:
        """Train from the last whole checkpoint, or from the start. False starts anew; a folder names one."""
        folder: Path | None = None
        if resume_from_checkpoint is None or resume_from_checkpoint is True:
            folder = last_checkpoint(Path(str(self.args.output_dir)))
        elif resume_from_checkpoint:
            folder = Path(resume_from_checkpoint)
        step = 0
        if folder is not None:
            state = read_state(folder)
            self.curriculum.load(state["curriculum"])
            self.guards.load(state["guards"])
            step = int(state["step"])
        self.records.begin(step)
        return super().train(resume_from_checkpoint=None if folder is None else str(folder), **kwargs)

    # The batches.

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        per_round = self.plan.steps_per_generation * self.plan.args.num_iterations
        if self._batches is None or self._step % per_round == 0:
            self._batches = self._collect()
        return self._batches[self._step % self.plan.steps_per_generation]

    def _collect(self) -> list[dict[str, Any]]:
        step = self.state.global_step + 1
        # Gradient checkpointing would drop the attention cache of a model in training mode.
        model: Any = self.model
        model.eval()
        try:
            self.sync.publish()
            progress = min(1.0, self.state.global_step / max(1, self.state.max_steps))
            found = self.collector.collect(step, progress)
            self.records.rollouts(step, found)
            self.guards.after_rollouts(step, found.figures, found.failures[0].error if found.failures else "none ran")
            batches = [self._finished(batch.to(self.accelerator.device), found) for batch in found.batches]
        finally:
            model.train()
        for name, value in found.figures.items():
            self._metrics["train"][name].append(value)
        return batches

    def _finished(self, batch: Batch, found: Round) -> dict[str, Any]:
        """A batch with the log-probs of the old policy and of the reference, where the loss wants them."""
        inputs = batch.loss_inputs(found.items)
        correction, sampled = self.plan.correction, batch.sampled_BT[:, 1:]
        several = self.plan.args.gradient_accumulation_steps % (
            self.plan.steps_per_generation * self.plan.args.num_iterations
        )
        if correction is Correction.CLIP:
            inputs["old_per_token_logps"] = batch.logprobs_BT[:, 1:]
        elif several or correction is not Correction.NONE:
            inputs["old_per_token_logps"] = self._old(self.model, batch)
        if correction in (Correction.TOKEN, Correction.SEQUENCE):
            ratio = _ratio(inputs["old_per_token_logps"], batch.logprobs_BT[:, 1:], sampled, self.plan)
            # The ratio is not negative, so it can stand before the clipped minimum as well as behind it.
            inputs["advantages"] = inputs["advantages"] * ratio
            self._metrics["train"]["correction/mean"].append(
                float((ratio * sampled).sum() / sampled.sum().clamp(min=1))
            )
        if self.beta != 0.0:
            inputs["ref_per_token_logps"] = self._reference(batch)
        return inputs

    @torch.no_grad()
    def _old(self, model: Any, batch: Batch) -> Tensor:
        return self._forward(model, batch)[0]

    def _reference(self, batch: Batch) -> Tensor:
        if self.ref_model is not None:
            return self._old(self.ref_model, batch)
        from trl.trainer.utils import use_adapter

        model: Any = self.accelerator.unwrap_model(self.model)
        with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
            return self._old(self.model, batch)

    # The forward pass.

    def _forward(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """((B, T-1) log-probs at the sampling temperature, entropies); 0 where nothing is trained on."""
        labels = batch.model["input_ids"].masked_fill(~batch.trained_BT, -100)
        with self.accelerator.autocast():
            out = model(**batch.model, labels=labels, fused_lm_head=True)
        return out.log_probs, out.entropy

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """What TRL's loss asks; it has only views of the batch to give, so the batch itself is `_running`."""
        assert self._running is not None, "only within _compute_loss"
        logps, entropies = self._forward(model, self._running)
        self._logps = logps.detach()
        return logps, entropies, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        self._running = inputs["batch"]
        try:
            loss = super()._compute_loss(model, inputs) * inputs["batch"].factor
            self._check(loss.detach(), inputs)
        finally:
            self._running = None
        return loss

    def _check(self, loss: Tensor, inputs: dict[str, Any]) -> None:
        """Figures of the log-prob gap, as long as the weights are the sampler's; the same verdict on every process."""
        assert self._logps is not None
        sampled = inputs["batch"].sampled_BT[:, 1:]
        gap = (self._logps - inputs["sampling_per_token_logps"])[sampled].abs().float()
        fresh = self._step % (self.plan.steps_per_generation * self.plan.args.num_iterations)
        on_policy = fresh < self.args.gradient_accumulation_steps
        mine = torch.stack(
            [gap.sum(), torch.tensor(float(gap.numel()), device=gap.device), _top(gap), (~loss.isfinite()).float()]
        )
        sums = cast("Tensor", self.accelerator.gather(mine)).view(-1, 4)
        mean = float(sums[:, 0].sum() / sums[:, 1].sum().clamp(min=1))
        if on_policy:
            self._metrics["train"]["logprob_gap/mean"].append(mean)
            self._metrics["train"]["logprob_gap/max"].append(float(sums[:, 2].max()))
        self.guards.before_update(self.state.global_step + 1, mean if on_policy else 0.0, not bool(sums[:, 3].any()))

    # What is kept.

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)
        self.records.log(self.state.global_step, logs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: a run's folder is no publication."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
            save_profile(self.agent.profile, folder)
            kept = {"curriculum": self.curriculum.state(), "guards": self.guards.state()}
            write_state(folder, {"step": self.state.global_step, **kept})


class _Watch(TrainerCallback):
    """Looks at the gradient before the optimiser does."""

    def __init__(self, trainer: AgentGRPOTrainer) -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model: Any = self._trainer.model
        grads: list[Any] = [p.grad for p in model.parameters() if p.grad is not None]
        bad = any(not bool(torch.isfinite(g.to_local() if hasattr(g, "to_local") else g).all()) for g in grads)
        if any(self._trainer.collector.crew.all(bad)):
            self._trainer.guards.gradient(state.global_step + 1, float("nan"))


def _scored_elsewhere(**kwargs: Any) -> list[float]:
    raise AssertionError("rewards come from the plan's rubric")


def _ratio(old: Tensor, sampler: Tensor, sampled: Tensor, plan: Plan) -> Tensor:
    """p_trainer / p_sampler, truncated by token or masked by sequence; see `Correction`."""
    difference = torch.nan_to_num((old - sampler) * sampled)
    if plan.correction is Correction.TOKEN:
        return difference.exp().clamp(max=plan.correction_cap)
    ratio = difference.sum(-1, keepdim=True).exp()
    return ratio.masked_fill(ratio > plan.correction_cap, 0.0).expand_as(difference)


def _top(values: Tensor) -> Tensor:
    return values.max() if values.numel() else values.new_zeros(())

"""Supervised runs on TRL, on a tiny random Qwen3-VL: resumed runs, adapters, the recipes, the agent among the measurements."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from playhead.core.budget import Budget
from playhead.core.errors import DataError, ModelError
from playhead.core.nouns import Task
from playhead.core.tasks import write_tasks
from playhead.train.recipes import recipe

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.timeout(600)  # reading trl alone takes half a minute on a busy machine


def tiny(name: str, checkpoint: Path, data: Path, out: Path, **changes):
    """A recipe, cut down: small batches on a CPU, few steps."""
    run = recipe(name)(init=str(checkpoint), data=[data], out=out)
    small = {"use_cpu": True, "bf16": False, "logging_steps": 1, "gradient_accumulation_steps": 2}
    trainer = {**run.trainer, **small, **changes.pop("trainer", {})}
    ours = {"batch_tokens": 700, "steps": 4, "measure_every": 2, "held_out_every": 4, "dtype": "float32"}
    return replace(run, **{**ours, **changes}, trainer=trainer)


def losses(out: Path, name: str = "loss") -> dict[int, float]:
    entries = map(json.loads, (out / "curve.jsonl").read_text().splitlines())
    return {e["step"]: e[name] for e in entries if name in e}


class Killed(BaseException):
    """As abrupt as can be without ending the test."""


def test_a_killed_run_resumes_to_the_same_curve(checkpoint, recorded_set, tmp_path, monkeypatch):
    from playhead.train import sft
    from playhead.train.sft_trainer import WeightedSFT

    run = tiny("qwen3vl_8b_sft", checkpoint, recorded_set, tmp_path / "whole", muon=1e-3, trainer={"learning_rate": 1e-3})
    result = sft.train_sft(run)
    whole = losses(run.out)
    assert not find_spec("matplotlib") or (run.out / "curve.png").stat().st_size > 1000
    assert sorted(whole) == [1, 2, 3, 4] and result["samples"] == 9 and result["held_out"] == 3
    measured = losses(run.out, "eval_loss")
    best = min((loss, step) for step, loss in measured.items() if step)
    assert (result["best_measure"], result["best_step"]) == pytest.approx(best) and result["measure_before"] == measured[0]

    killed = replace(run, out=tmp_path / "killed")
    step = WeightedSFT.training_step

    def until_the_third(self, *args, **kwargs):
        if self.state.global_step == 3:
            raise Killed
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(WeightedSFT, "training_step", until_the_third)
        sft.train_sft(killed)
    (killed.state_dir / "checkpoint-3").mkdir()  # a state that was cut off while it was written
    assert sft.last_state(killed.state_dir) == killed.state_dir / "checkpoint-2"
    sft.train_sft(killed)
    again = losses(killed.out)
    assert max(abs(again[s] - whole[s]) for s in whole) < 1e-5
    held_out = losses(run.out, "eval_loss"), losses(killed.out, "eval_loss")
    assert abs(held_out[0][4] - held_out[1][4]) < 1e-5
    assert held_out[0][4] < held_out[0][0]

    with pytest.raises(DataError, match="another batch_tokens"):
        sft.train_sft(replace(killed, batch_tokens=600))


@pytest.mark.parametrize(("before", "best", "worse"), [(0.4, 0.5, True), (0.6, 0.5, False), (0.5, 0.5, False)])
@pytest.mark.parametrize("greater", [False, True])
def test_a_run_that_only_made_things_worse_says_so(before, best, worse, greater, caplog):
    """The beginning is measured and never chosen."""
    from types import SimpleNamespace

    from playhead.train.sft import _compared

    sign = -1 if greater else 1
    trainer = SimpleNamespace(
        args=SimpleNamespace(metric_for_best_model="m", greater_is_better=greater),
        state=SimpleNamespace(best_metric=sign * best, best_global_step=8, log_history=[{"step": 0, "m": sign * before}]),
        is_world_process_zero=lambda: True,
    )
    assert _compared(trainer) == {"best_step": 8, "best_measure": sign * best, "measure_before": sign * before}  # type: ignore[arg-type]
    assert ("those that the run began with are better" in caplog.text) == worse
    trainer.state.log_history = []  # nothing was measured
    assert _compared(trainer) == {}  # type: ignore[arg-type]


def test_an_adapter_is_trained_merged_and_loaded(checkpoint, recorded_set, tmp_path):
    from playhead.agent.policies.loading import LoadOptions, load_checkpoint
    from playhead.train.merge import merge_adapter
    from playhead.train.sft import train_sft

    run = tiny("qwen3vl_8b_lora", checkpoint, recorded_set, tmp_path / "lora", steps=2, trainer={"learning_rate": 1e-2})
    result = train_sft(run)
    assert result["checkpoint"] == str(run.checkpoint_dir)
    base, _ = load_checkpoint(str(checkpoint), "cpu", LoadOptions())
    merged, renderer = load_checkpoint(str(run.checkpoint_dir), "cpu", LoadOptions())
    again = merge_adapter(run.adapter_dir, tmp_path / "merged", str(checkpoint), "float32")
    other, _ = load_checkpoint(str(again), "cpu", LoadOptions())
    on_top, _ = load_checkpoint(str(checkpoint), "cpu", LoadOptions(adapter=run.adapter_dir))
    ids = torch.tensor([renderer.encode("<think>seen</think>")])
    with torch.no_grad():
        before, after, twice, unmerged = (m(input_ids=ids).logits for m in (base, merged, other, on_top))
    assert (before - after).abs().max() > 1e-3
    assert torch.allclose(after, twice, atol=1e-5) and torch.allclose(after, unmerged, atol=1e-4)
    vision = [(a, b) for (n, a), b in zip(base.named_parameters(), merged.parameters(), strict=True) if "visual" in n]
    assert vision and all(torch.equal(a, b) for a, b in vision)
    with pytest.raises(ModelError, match="no adapter there"):
        merge_adapter(tmp_path, tmp_path / "x")
    with pytest.raises(ModelError, match="not empty"):
        merge_adapter(run.adapter_dir, again)


def test_the_agent_says_which_weights_are_best_and_the_result_is_asked(checkpoint, recorded_set, film, tmp_path):
    import shutil

    from playhead.agent.profile import PROFILE_FILE, Profile, save_profile
    from playhead.agent.video_agent import VideoAgent
    from playhead.train.sft import train_sft
    from playhead.train.sft_run import AgentEval

    start = tmp_path / "start"
    shutil.copytree(checkpoint, start)
    save_profile(Profile(skim_frames=2, max_side=64, turn_tokens=6, system="", budget=Budget(turns=1)), start)
    tasks = [Task(id=f"q{i}", question="Which colour?", video=str(film), choices=("red", "blue"), answer="red") for i in (0, 1)]
    write_tasks(tmp_path / "tasks.jsonl", tasks)
    evaluated = AgentEval(tasks=tmp_path / "tasks.jsonl", limit=2, home=tmp_path / "home")
    run = tiny("qwen3vl_8b_sft", start, recorded_set, tmp_path / "run", steps=2, measure_every=1, agent_eval=evaluated)
    result = train_sft(run)
    assert sorted(losses(run.out, "eval_agent_accuracy")) == [0, 1, 2]
    scores = losses(run.out, "eval_agent_score")
    best = json.loads((run.state_dir / "checkpoint-2" / "trainer_state.json").read_text())
    assert best["best_metric"] == pytest.approx(max(v for s, v in scores.items() if s))
    agent = VideoAgent(result["checkpoint"], home=tmp_path / "home", budget=Budget(turns=1))
    assert agent.profile.turn_tokens == 6 and (run.checkpoint_dir / PROFILE_FILE).is_file()
    assert agent.ask(film, "Which colour?", ("red", "blue")).trajectory.turns


def test_the_loss_counts_weights_and_only_sampled_tokens(checkpoint, recorded_set, tmp_path):
    """One step's reported loss against the same by hand, over both of its batches."""
    from playhead.train import sft
    from playhead.train.collate import IGNORED, sequence_logprobs
    from playhead.train.weights import LossWeights

    weights = LossWeights(thought=0.5, answer=3.0)
    run = tiny("qwen3vl_8b_sft", checkpoint, recorded_set, tmp_path / "r", steps=1, weights=weights, packed=True)
    model, renderer = sft._load(run)
    episodes = sft.read_episodes(run.data, renderer)
    train, held_out, _ = sft._prepared(run, episodes, renderer)
    trainer = sft._trainer(run, model, renderer, episodes, train, held_out)
    batches = [trainer.data_collator([row]) for row in trainer.train_dataset]
    assert len(batches) == 2 and all(b["input_ids"].shape[0] == 1 for b in batches)
    with torch.no_grad():
        parts = [sequence_logprobs(model, b, where=b["labels"] != IGNORED) * b["loss_weights"] for b in batches]
    expected = -sum(p.sum() for p in parts) / sum(b["loss_weights"].sum() for b in batches)
    trainer.train()
    logged = [e["loss"] for e in trainer.state.log_history if "loss" in e]
    assert logged == [pytest.approx(float(expected), abs=1e-4)]
    with pytest.raises(DataError, match="max_length: set by the run itself"):
        sft._arguments(replace(run, trainer={"max_length": 3}), False)
    with pytest.raises(ModelError, match="TRL refuses"):
        sft._arguments(replace(run, trainer={"no_such_thing": 3}), False)

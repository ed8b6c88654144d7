"""The GRPO trainer on a tiny random Qwen3-VL: parity and frames inside the step, learning, resuming, failures, guards."""

import json
from dataclasses import replace
from pathlib import Path

import grpo_toy as toy
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")


TOLERANCE = 1e-4
pytestmark = pytest.mark.timeout(600)
"""The first test of all imports torch and trl, which takes a busy machine minutes."""


def figures(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def straight(checkpoint, tmp_path_factory):
    """A run of three steps, uninterrupted."""
    out = tmp_path_factory.mktemp("straight")
    trainer = toy.make_trainer(checkpoint, out, steps=3, save_strategy="no")
    trainer.train()
    return trainer


def test_what_a_run_leaves(straight):
    out = Path(straight.args.output_dir)
    lines = figures(out)
    assert [line["step"] for line in lines] == [1, 2, 3]
    wanted = {
        "reward", "reward/std", "reward/even", "right", "answered", "stop/answered", "calls", "calls/zoom",
        "calls_failed/zoom", "entropy", "logprob_gap/max", "frames", "tokens/sampled", "rollouts/failed",
        "groups/without_signal", "seconds/rollout", "seconds/tools", "seconds/training", "grad_norm", "loss",
    }  # fmt: skip
    assert wanted <= set(lines[0])
    assert (out / "run.png").stat().st_size > 0
    from playhead.core.trajectory import read_trajectories

    (first,) = (out / "trajectories").glob("step-00001.jsonl")
    shown = list(read_trajectories(first))
    assert len(shown) == 8 and all(t.reward is not None for t in shown)
    versions = {turn.completion.policy_version for t in shown for turn in t.turns}
    assert len(versions) == 1


def test_the_sampler_and_the_trainer_agree_in_every_step(straight):
    """Issue: log-prob parity inside the GRPO step."""
    for line in figures(Path(straight.args.output_dir)):
        assert 0 < line["logprob_gap/max"] <= TOLERANCE
        assert line["grad_norm"] > 0


@pytest.fixture(scope="module")
def collected(checkpoint, tmp_path_factory):
    """A trainer, and the batches of one round of rollouts."""
    trainer = toy.make_trainer(checkpoint, tmp_path_factory.mktemp("round"))
    trainer.model.eval()
    trainer.sync.publish()
    return trainer, trainer.collector.collect(1, 0.0)


def test_parity_of_the_forward_that_the_loss_takes(collected):
    from playhead.train.collate import sequence_logprobs

    trainer, found = collected
    assert len(found.batches) == 2
    for batch in found.batches:
        with torch.no_grad():
            logps, entropy = trainer._forward(trainer.model, batch)
            ours = sequence_logprobs(trainer.model, batch.model, 1.0)
        sampled = batch.sampled_BT[:, 1:]
        assert sampled.sum() > 20
        assert (logps - batch.logprobs_BT[:, 1:])[sampled].abs().max() <= TOLERANCE
        assert (ours[:, 1:] - logps)[sampled].abs().max() <= TOLERANCE
        assert entropy is not None and (entropy[sampled] > 0).all()
        assert (logps[~sampled] == 0).all()


def test_every_frame_is_in_the_forward_and_only_before_what_follows_it(collected):
    """Issue: a frame-perturbation test guards every forward path. Prompt frames and frames of tool replies, each alone."""
    from playhead.train.grpo.advantages import Scale
    from playhead.train.grpo.batches import make_batch, samples_with_advantages

    trainer, found = collected
    some = [[t] for t in found.trajectories[:2]]
    samples = samples_with_advantages(some, trainer.collector.collator.renderer, Scale.NONE)
    store = trainer.agent.store

    def logps():
        batch = make_batch(samples, trainer.collector.collator)
        with torch.no_grad():
            return trainer._forward(trainer.model, batch)[0], batch

    before, batch = logps()
    at, image = 0, trainer.collector.collator.renderer.image_token_id
    for index, shown in enumerate(samples[0].frames_F):
        while samples[0].token_ids_T[at] != image:
            at += 1
        store.salt = {shown.sha256: 1}
        after, _ = logps()
        store.salt = {}
        moved = ((after - before).abs() > 1e-6) & batch.sampled_BT[:, 1:]
        follows = torch.arange(1, batch.sampled_BT.shape[1]) > at
        own = batch.sampled_BT[0, 1:]
        assert moved[0][own & follows].float().mean() > 0.9, f"frame {index} is not seen"
        assert not moved[0][own & ~follows].any(), f"frame {index} is seen before it was shown"
        if all(shown.sha256 != other.sha256 for other in samples[1].frames_F):
            assert not moved[1].any(), f"frame {index} is seen by another sample"
        while samples[0].token_ids_T[at] == image:
            at += 1


def test_images_that_do_not_fit_their_tokens_are_an_error_that_names_the_sample(collected):
    from playhead.core.errors import DataError
    from playhead.train.grpo.advantages import Scale
    from playhead.train.grpo.batches import make_batch, samples_with_advantages

    trainer, found = collected
    one = found.trajectories[0]
    turn = replace(one.turns[1], context_frames=(), context_messages=())
    broken = replace(one, id="the-broken-one", turns=(one.turns[0], turn, *one.turns[2:]))
    with pytest.raises(DataError, match="the-broken-one"):
        samples_with_advantages([[broken]], trainer.collector.collator.renderer, Scale.NONE)
    (sample,) = samples_with_advantages([[one]], trainer.collector.collator.renderer, Scale.NONE)
    with pytest.raises(DataError, match=sample.id):
        make_batch([replace(sample, frames_F=sample.frames_F[1:])], trainer.collector.collator)


def test_a_resumed_run_is_the_uninterrupted_one(straight, checkpoint, tmp_path):
    """Issue: rewards and losses to 1e-5. The run is stopped after two steps, and its newest checkpoint is a torn one."""
    first = toy.make_trainer(checkpoint, tmp_path, steps=2, save_steps=2)
    first.train()
    from playhead.agent.profile import load_profile

    assert load_profile(tmp_path / "checkpoint-2").skim_frames == 3, "a checkpoint is a model like any other"
    torn = tmp_path / "checkpoint-3"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "reward": 99}\n{"step": 4, "rew')
    second = toy.make_trainer(checkpoint, tmp_path, steps=3, save_strategy="no")
    second.train()
    ours, theirs = figures(tmp_path), figures(Path(straight.args.output_dir))
    assert [line["step"] for line in ours] == [1, 2, 3]
    for a, b in zip(ours, theirs, strict=True):
        for name in ("reward", "loss", "grad_norm", "tokens/sampled"):
            assert a[name] == pytest.approx(b[name], abs=1e-5, rel=0), name
    for p, q in zip(second.model.parameters(), straight.model.parameters(), strict=True):
        assert (p - q).abs().max() < 1e-5


def test_it_learns(checkpoint, tmp_path):
    trainer = toy.make_trainer(
        checkpoint, tmp_path, steps=10, agent={"turns": 2}, learning_rate=5e-3, save_strategy="no",
        per_device_train_batch_size=8, num_generations=8, plan={"keep_without_signal": True},
    )  # fmt: skip
    trainer.train()
    rewards = [line["reward"] for line in figures(tmp_path)]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1


def test_a_worker_that_dies_in_a_rollout_is_left_out_and_counted(checkpoint, tmp_path):
    trainer = toy.make_trainer(checkpoint, tmp_path, steps=2, agent={"fails": {1, 2, 9}}, save_strategy="no")
    trainer.train()
    lines = figures(tmp_path)
    assert [line["rollouts/failed"] for line in lines] == [2.0, 1.0]
    assert [line["rollouts/sound"] for line in lines] == [6.0, 7.0]
    failures = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert [f["step"] for f in failures] == [1, 1, 2] and "worker of episode 1 is gone" in failures[0]["error"]


def test_when_all_die_the_run_stops_and_says_why(checkpoint, tmp_path):
    from playhead.train.grpo.guards import RunStopped

    trainer = toy.make_trainer(checkpoint, tmp_path, steps=2, agent={"fails": set(range(99))}, save_strategy="no")
    with pytest.raises(RunStopped, match=r"all rollouts failed.*worker of episode"):
        trainer.train()
    assert len((tmp_path / "failures.jsonl").read_text().splitlines()) == 8, "written before the run is stopped"


def test_a_sampler_with_other_weights_stops_the_run(checkpoint, tmp_path):
    from playhead.train.grpo.guards import RunStopped

    trainer = toy.make_trainer(checkpoint, tmp_path, save_strategy="no")
    other = toy.make_policy(checkpoint, trainer.agent.store)
    with torch.no_grad():
        other.model.lm_head.weight.mul_(1.5)
    trainer.agent.policy = other
    with pytest.raises(RunStopped, match="sampler and trainer differ"):
        trainer.train()


def test_a_loss_that_is_not_a_number_stops_the_run_before_the_update(checkpoint, tmp_path):
    from playhead.train.grpo.guards import RunStopped

    trainer = toy.make_trainer(checkpoint, tmp_path, save_strategy="no")
    before = [p.detach().clone() for p in trainer.model.parameters()]
    good = trainer.collector.collect

    def poisoned(step, progress):
        found = good(step, progress)
        found.batches[1].advantages_BT.fill_(float("nan"))
        return found

    trainer.collector.collect = poisoned
    with pytest.raises(RunStopped, match="not a number"):
        trainer.train()
    assert all(torch.equal(p, q) for p, q in zip(trainer.model.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ({"loss_type": "grpo", "importance_sampling_level": "sequence"}, {}),
        ({"loss_type": "dr_grpo", "scale_rewards": "none"}, {}),
        ({"loss_type": "cispo", "epsilon_high": 5.0, "beta": 0.04, "scale_rewards": "batch"}, {"correction": "token"}),
        ({"loss_type": "dapo", "num_iterations": 2, "epsilon_high": 0.28, "save_steps": 2}, {"correction": "sequence"}),
        ({"loss_type": "dapo"}, {"correction": "clip", "credit": True, "refills": 1}),
    ],
    ids=["gspo", "dr_grpo", "cispo-kl", "dapo-two-passes", "turn-credit"],
)
def test_variants(checkpoint, tmp_path, args, options):
    from playhead.train.grpo.advantages import TurnCredit
    from playhead.train.grpo.plan import Correction

    plan = dict(options)
    plan = {k: v for k, v in (
        ("correction", Correction(plan["correction"]) if "correction" in plan else None),
        ("credit", TurnCredit() if plan.get("credit") else None),
        ("refills", plan.get("refills")),
    ) if v is not None}  # fmt: skip
    trainer = toy.make_trainer(checkpoint, tmp_path, steps=2, plan=plan, **{"save_strategy": "no", **args})
    trainer.train()
    lines = figures(tmp_path)
    assert len(lines) == 2 and all(line["grad_norm"] > 0 for line in lines)
    if "beta" in args:
        assert lines[0]["kl"] == pytest.approx(0, abs=1e-6) and lines[1]["kl"] > 0


def by_hand(name: str, logp, ratio, mask, adv, items: float, longest: int):
    """The loss of one batch, from the papers' formulas. All are (B, T); clipping is 0.2 below and 0.28 above."""
    rows, tokens = mask.sum(-1), mask.sum()
    if name == "gspo":  # one ratio a rollout, the geometric mean of its tokens'
        ratio = ((ratio.log() * mask).sum(-1) / rows).exp()[:, None].expand_as(mask)
    if name == "cispo":  # the weight is cut and not differentiated through, and no token is lost
        each = -ratio.clamp(max=5.0).detach() * adv * logp
    else:
        each = -torch.minimum(ratio * adv, ratio.clamp(0.8, 1.28) * adv)
    if name in ("cispo", "dapo"):
        return (each * mask).sum() / items
    if name == "dr_grpo":
        return (each * mask).sum() / (len(mask) * longest)
    return ((each * mask).sum(-1) / rows).mean() if tokens else each.sum()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("grpo", {"loss_type": "grpo"}),
        ("gspo", {"loss_type": "grpo", "importance_sampling_level": "sequence"}),
        ("dr_grpo", {"loss_type": "dr_grpo"}),
        ("dapo", {"loss_type": "dapo"}),
        ("cispo", {"loss_type": "cispo", "epsilon_high": 5.0}),
    ],
)
def test_each_variant_is_its_formula_where_the_policy_has_moved(checkpoint, tmp_path, name, args):
    """Ratios from 0.3 to 3, so that both ends of the clipping count: the variants differ, and each is the one it is called."""
    how = {"epsilon": 0.2, "epsilon_high": 0.28, **args}
    trainer = toy.make_trainer(checkpoint, tmp_path, save_strategy="no", **how)
    trainer.model.eval()
    trainer.sync.publish()
    found = trainer.collector.collect(1, 0.0)
    (batch, _) = found.batches
    mask = batch.trained_BT[:, 1:].float()
    with torch.no_grad():
        logp = trainer._forward(trainer.model, batch)[0]
    moved = torch.empty_like(logp).uniform_(-1.2, 1.2, generator=torch.Generator().manual_seed(3)) * mask
    inputs = batch.loss_inputs(found.items) | {"old_per_token_logps": logp - moved}
    loss = float(trainer._compute_loss(trainer.model, inputs).detach())
    losses = {
        other: float(by_hand(other, logp, moved.exp(), mask, batch.advantages_BT[:, 1:], found.items, 64))
        for other in ("grpo", "gspo", "dr_grpo", "dapo", "cispo")
    }
    assert loss == pytest.approx(losses[name], rel=1e-4, abs=1e-7)
    assert all(abs(loss - wrong) > 1e-5 for other, wrong in losses.items() if other != name), losses


def test_groups_without_signal_are_dropped_refilled_and_counted(checkpoint, tmp_path):
    from playhead.train.rewards import Rubric

    class Always:
        name = "always"

        def __call__(self, trajectory, context):
            return 1.0

    trainer = toy.make_trainer(checkpoint, tmp_path, steps=1, plan={"refills": 2}, save_strategy="no")
    trainer.collector.plan = replace(trainer.plan, rubric=Rubric.of("flat", [(Always(), 1.0)]))
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    (line,) = figures(tmp_path)
    assert line["groups/kept"] == 0 and line["groups/without_signal"] == 6 and line["groups/refilled"] == 4
    assert line["rollouts/sound"] == 24 and line["loss"] == 0
    assert all(torch.equal(p, q) for p, q in zip(trainer.model.parameters(), before, strict=True))


def test_rollouts_on_shuffled_frames_are_compared_with_and_not_trained_on(checkpoint, tmp_path):
    """T-GRPO: right answers earn what they are more often right than on shuffled frames."""
    from playhead.train.rewards import Rubric
    from playhead.train.rewards.contrast import TemporalContrast

    trainer = toy.make_trainer(checkpoint, tmp_path, steps=1, plan={"shuffled": 2}, save_strategy="no")
    trainer.collector.plan = replace(
        trainer.plan, rubric=Rubric.of("t", [(toy.EvenTokens(), 1.0), (TemporalContrast(), 0.3)])
    )
    seen = []
    real = trainer.collector._score

    def score(group, progress, shuffled, bare):
        scored = real(group, progress, shuffled, bare)
        rates = [sum(t.answer.text == "red" for t in g.trajectories) / len(g.trajectories) for g in (scored, shuffled)]
        for t in scored.trajectories:
            wanted = 0.3 * max(0.0, rates[0] - rates[1]) * (t.answer.text == "red")
            assert t.reward_parts["temporal_contrast"] == pytest.approx(wanted)
        seen.append(len(scored.trajectories))
        return scored

    trainer.collector._score = score
    trainer.train()
    (line,) = figures(tmp_path)
    assert seen == [4, 4] and line["rollouts/sound"] == 8, "the others are not counted among them"
    assert trainer.agent.played == 12 and trainer.agent.shuffled == 4


def test_plans_that_cannot_be_carried_out(tmp_path):
    from playhead.train.grpo.plan import PlanError

    for bad, said in (
        ({"loss_type": "foo"}, "loss_type='foo': take one of grpo, dr_grpo"),
        ({"importance_sampling_level": "turn"}, "take one of token, sequence"),
        ({"scale_rewards": "some"}, "take one of group, batch, none"),
        ({"temperature": 0.0}, "temperature=0.0: must be above 0"),
        ({"plan": {"refills": -1}}, "refills=-1: must be 0 or more"),
        ({"mask_truncated_completions": True}, "must stay False"),
        ({"top_p": 0.9}, "top_p=0.9: rollouts are sampled from the whole distribution"),
        ({"top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1}, "top_k=20, min_p=0.1, repetition_penalty=1.1"),
        ({"per_device_train_batch_size": 2, "num_generations": 4, "gradient_accumulation_steps": 1, "steps_per_generation": 2,
          "generation_batch_size": None, "save_steps": 1}, "middle of a round"),
    ):  # fmt: skip
        with pytest.raises(PlanError, match=said):
            toy.make_plan(tmp_path, **bad)
    from playhead.train.grpo.plan import Correction

    with pytest.raises(PlanError, match="no log-prob of the sampler"):
        toy.make_plan(tmp_path, plan={"observations": True, "correction": Correction.TOKEN})


def test_an_agent_that_cuts_the_distribution_is_refused_by_name(checkpoint, tmp_path):
    from playhead.train.grpo.plan import PlanError

    with pytest.raises(PlanError, match=r"top_p=0\.8"):
        toy.make_trainer(checkpoint, tmp_path, agent={"top_p": 0.8})

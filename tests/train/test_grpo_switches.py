"""What a GRPO plan can switch: verdicts, rollouts beside, credit by turns, importance ratios, the ablations of the recipe."""

import json
from dataclasses import replace

import grpo_toy as toy
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytestmark = pytest.mark.timeout(600)
"""The first test of all imports torch and trl, which takes a busy machine minutes."""


def test_verdicts_and_rollouts_without_tools_reach_the_rewards_that_need_them(checkpoint, tmp_path):
    """Completeness, judged answers and tool necessity can be trained with; a verdict that fails is that rollout's failure."""
    from playhead.core.errors import ModelError
    from playhead.train.rewards import Rubric
    from playhead.train.rewards.evidence import Completeness
    from playhead.train.rewards.tools import ToolNecessity

    parts = [(toy.EvenTokens(), 1.0), (Completeness(), 1.0), (ToolNecessity(), 1.0)]
    trainer = toy.make_trainer(checkpoint, tmp_path, plan={"without_tools": 3}, save_strategy="no")
    collector = trainer.collector
    collector.plan = replace(trainer.plan, rubric=Rubric.of("t", parts))
    asked, bare = [], []

    async def verifier(trajectory):
        asked.append(trajectory.id)
        if len(asked) == 2:
            raise ModelError("the verifier is down")
        return trajectory.answer

    collector.verifier = verifier
    real = collector._score

    def score(group, progress, shuffled, others):
        # The toy's tools look at nothing; a verifier is asked only about what was looked at.
        seen = replace(group, trajectories=tuple(map(looked, group.trajectories)))
        bare.append(others)
        return real(seen, progress, shuffled, others)

    collector._score = score
    trainer.model.eval()
    trainer.sync.publish()
    found = collector.collect(1, 0.0)
    assert len(asked) == 8 and len(found.trajectories) == 7 and "verifier is down" in found.failures[0].error
    assert trainer.agent.played == 8 + 6 and trainer.agent.bare == 6, "three a task, and not among those trained on"
    rates = {g.task.id: sum(t.answer.text == "red" for t in g.trajectories) / 3 for g in bare}
    for t in found.trajectories:
        right = t.answer.text == "red"
        assert t.reward_parts["completeness"] == right
        assert t.reward_parts["tool_necessity"] == pytest.approx((1 - rates[t.task.id]) * right)


def looked(trajectory):
    """The same, as if its first call had looked at 1 to 2 s."""
    from playhead.core.clip import Clip

    first, *rest = trajectory.turns
    (seen,) = first.observations
    seen = replace(seen, clips=(Clip(video_id="v", start_s=1.0, end_s=2.0),))
    return replace(trajectory, turns=(replace(first, observations=(seen,)), *rest))


def test_credit_by_turns_lies_on_the_tokens_of_the_turn_that_found_it(checkpoint, tmp_path):
    from playhead.core.clip import Clip
    from playhead.train.grpo.advantages import Scale, TurnCredit
    from playhead.train.grpo.batches import samples_with_advantages

    trainer = toy.make_trainer(checkpoint, tmp_path)
    trainer.model.eval()
    found = trainer.collector.collect(1, 0.0)
    gold = (Clip(video_id="v", start_s=1.0, end_s=2.0),)
    pair = [replace(t, reward_parts={"even": 0.5}) for t in found.trajectories[:2]]
    pair = [replace(t, task=replace(t.task, evidence=gold)) for t in pair]
    pair[0] = looked(pair[0])  # finds all of it in its first turn; the other one never does
    renderer = trainer.collector.collator.renderer
    samples = samples_with_advantages([pair], renderer, Scale.NONE, credit=TurnCredit(weight=0.5))
    for sample, at_first in zip(samples, (0.25, -0.25), strict=True):
        said = [a for a, m in zip(sample.advantages_T, sample.loss_mask_T, strict=True) if m]
        first = len(pair[0].turns[0].completion.token_ids)
        assert said[:first] == pytest.approx([at_first] * first), "alike in reward: all of it is credit"
        assert said[first:] == [0.0] * (len(said) - first), "nothing was found later"


def test_importance_ratios_by_hand():
    from types import SimpleNamespace

    from playhead.train.grpo.plan import Correction
    from playhead.train.grpo.trainer import _ratio

    old, sampler = (
        torch.log(torch.tensor([[0.4, 0.9, 0.5], [0.2, 0.2, 0.3]])),
        torch.log(torch.tensor([[0.2, 0.1, 0.9]])),
    )
    sampled = torch.tensor([[True, True, False], [True, True, True]])
    token = _ratio(old, sampler, sampled, SimpleNamespace(correction=Correction.TOKEN, correction_cap=3.0))
    assert torch.allclose(token, torch.tensor([[2.0, 3.0, 1.0], [1.0, 2.0, 1 / 3]])), (
        "cut at 3, 1 on what was not sampled"
    )
    whole = _ratio(old, sampler, sampled, SimpleNamespace(correction=Correction.SEQUENCE, correction_cap=3.0))
    assert torch.allclose(whole, torch.tensor([[0.0] * 3, [2 / 3] * 3])), "18 is above the cap: left out"


def test_without_masking_tools_words_are_trained_on_and_images_are_not(checkpoint, tmp_path):
    """The ablation: all behind the first sampled token counts; the gap is still measured on what was sampled."""
    trainer = toy.make_trainer(checkpoint, tmp_path, steps=1, plan={"observations": True}, save_strategy="no")
    seen = []
    collect = trainer.collector.collect
    trainer.collector.collect = lambda *how: seen.append(collect(*how)) or seen[-1]
    trainer.train()
    (line,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert line["grad_norm"] > 0 and line["logprob_gap/max"] <= 1e-4
    image = trainer.collector.collator.renderer.image_token_id
    for batch in seen[0].batches:
        ids, sampled, trained = batch.model["input_ids"], batch.sampled_BT, batch.trained_BT
        behind = sampled.cumsum(1) > 0
        real = batch.model["attention_mask"].bool()
        assert torch.equal(trained, behind & (ids != image) & real)
        assert (trained & ~sampled).sum() > sampled.sum(), "tools say more here than the policy"
        for row in range(len(ids)):
            assert len(set(batch.advantages_BT[row][trained[row]].tolist())) == 1, "one advantage for all of a rollout"
        assert torch.equal(batch.loss_inputs(1.0)["tool_mask"].bool(), trained[:, 1:])
    assert seen[0].items == sum(int(b.trained_BT.sum()) for b in seen[0].batches)

    usual = toy.make_trainer(checkpoint, tmp_path / "usual", save_strategy="no")
    for batch in usual.collector.collect(1, 0.0).batches:
        assert torch.equal(batch.trained_BT, batch.sampled_BT)


def test_the_recipe_takes_the_switches_of_the_ablations(tmp_path):
    from playhead.core.errors import DataError
    from playhead.train.grpo.run import find_recipe

    make = find_recipe("embedded_cpu")
    usual = make(tmp_path).plan
    assert (usual.group_size, usual.groups, usual.observations) == (8, 4, False)
    assert {p.reward.name: p.weight for p in usual.rubric.parts}["cost_frames"] == 0.2
    small = make(tmp_path, num_generations=4, temperature=1.0).plan
    assert (small.group_size, small.groups, small.args.temperature) == (4, 8, 1.0), (
        "as many rollouts, in smaller groups"
    )
    assert {p.reward.name: p.weight for p in make(tmp_path, frames=0).plan.rubric.parts}["cost_frames"] == 0
    assert {p.reward.name: p.weight for p in make(tmp_path, seconds=0.3).plan.rubric.parts}["evidence_recall"] == 0.3
    assert make(tmp_path, observations=True).plan.observations
    text = make(tmp_path, reward="text").plan.rubric
    assert [p.reward.name for p in text.parts] == ["answer", "spans_in_text", "tags_in_text", "cost_frames"]
    assert [p.weight for p in text.parts] == [p.weight for p in usual.rubric.parts], "only what is read differs"
    with pytest.raises(DataError, match="take one of world, text"):
        make(tmp_path, reward="vibes")


def test_a_setting_of_another_name_is_one_line(tmp_path, capsys):
    from playhead.cli import run

    assert run(["train", "grpo", "--out", str(tmp_path / "run"), "--set", "colour=red"]) != 0
    assert "colour" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

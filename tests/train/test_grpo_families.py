"""A GRPO step on every family, hot: the sampler and the loss's forward agree, every frame is in it, the weights move."""

import json

import grpo_toy as toy
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytestmark = pytest.mark.timeout(600)
"""The first test of all imports torch and trl, which takes a busy machine minutes."""


def test_a_step(family, tmp_path):
    trainer = toy.make_trainer(
        family.folder, tmp_path, steps=1, temperature=1.3, save_strategy="no", agent={"turns": 2, "tokens": 4}
    )
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    (line,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert line["rollouts/failed"] == 0 and line["rollouts/sound"] == 8 and line["frames"] == 3
    assert 0 < line["logprob_gap/max"] <= 1e-4 and line["grad_norm"] > 0
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    for part in ("visual" if family.model_type != "smolvlm" else "vision_model", "layers.1"):
        assert any(part in name for name in moved), f"{part} learns"


def test_frames_of_prompt_and_tools_are_in_the_forward(family, tmp_path):
    from playhead.train.grpo.advantages import Scale
    from playhead.train.grpo.batches import make_batch, samples_with_advantages

    trainer = toy.make_trainer(family.folder, tmp_path, save_strategy="no", agent={"turns": 2, "tokens": 4})
    trainer.model.eval()
    found = trainer.collector.collect(1, 0.0)
    collator = trainer.collector.collator
    samples = samples_with_advantages([[t] for t in found.trajectories[:2]], collator.renderer, Scale.NONE)

    def logps():
        batch = make_batch(samples, collator)
        with torch.no_grad():
            return trainer._forward(trainer.model, batch)[0], batch.sampled_BT[:, 1:]

    before, sampled = logps()
    for shown, last_turn_only in zip(samples[0].frames_F, (False, False, True), strict=True):
        trainer.agent.store.salt = {shown.sha256: 1}
        moved = ((logps()[0] - before).abs() > 1e-6)[0][sampled[0]]
        trainer.agent.store.salt = {}
        assert moved[4:].float().mean() >= 0.75 and moved[:4].any() != last_turn_only

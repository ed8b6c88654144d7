"""The supervised trainer: its positions are the model's own, its data follow from the step, a resumed run is the same run."""

import argparse
import json

import numpy as np
import pytest
import torch
from playhead.train.embedded.dream import Dreamer
from playhead.train.embedded.examples import dream_example
from playhead.train.embedded.language import Collator, Crew, loss_of, stream, token_weights, train
from playhead.train.embedded.model import build_config, build_model
from playhead.train.embedded.perception import vision_config
from playhead.world.questions import KINDS


@pytest.fixture(scope="module")
def config(renderer):
    vision = {**vision_config().to_dict(), "depth": 1}
    return build_config(renderer.tokenizer, vision, layers=1)


@pytest.fixture
def model(config):
    model = build_model(config)
    model.model.visual.requires_grad_(False)
    return model


@pytest.fixture(scope="module")
def collator(renderer, config):
    return Collator(renderer, token_weights(renderer, config.text_config.vocab_size))


@pytest.fixture(scope="module")
def examples(renderer):
    dreams = Dreamer(renderer, direct_share=0.0).dreams(3)
    return [dream_example(d, 0.0, np.random.default_rng(0)) for d in sorted(dreams, key=lambda d: len(d.token_ids_T))[:4]]


def test_logits_equal_those_of_the_checkpoints_own_forward(model, collator, examples, renderer):
    """The model's own forward, given pixels, merges features and finds positions by itself; ours must say the same."""
    frames = examples[1].frames_F
    rng = np.random.default_rng(0)
    pictures = {f: rng.integers(0, 255, (f.height, f.width, 3), dtype=np.uint8) for f in frames}

    class Store:
        def pixels(self, frame):
            return pictures[frame]

    pixels, grids = renderer.pixel_inputs(frames, Store())
    with torch.no_grad():
        features = torch.cat(list(model.model.get_image_features(pixels, grids, return_dict=True).pooler_output))
        batch = collator([_with(examples[1], features)])
        ids = batch.token_ids_BT
        theirs = model(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, image_grid_thw=grids,
            mm_token_type_ids=(ids == renderer.image_token_id).long(),
        ).logits  # fmt: skip
        weight = batch.weight_BT[:, 1:]
        losses = torch.nn.functional.cross_entropy(theirs[0, :-1], ids[0, 1:], reduction="none")
        loss, _, _ = loss_of(model, batch, amp=False)
    assert loss.item() == pytest.approx(((losses * weight[0]).sum() / weight.sum()).item(), abs=1e-4)


def _with(example, features):
    from dataclasses import replace

    return replace(example, features_ND=features)


def test_padding_and_neighbours_do_not_change_a_rows_loss(model, collator, examples):
    with torch.no_grad():
        alone, right, weight = loss_of(model, collator([examples[0]]), amp=False)
        batch = collator([examples[3], examples[0]])
        batch.weight_BT[0] = 0
        together, right2, weight2 = loss_of(model, batch, amp=False)
    assert together.item() == pytest.approx(alone.item(), abs=1e-5)
    assert torch.equal(right, right2) and torch.equal(weight, weight2)


def test_two_processes_share_the_stream_of_one(renderer):
    def ids(crew: Crew, skip: int, n: int):
        groups = stream(Dreamer(renderer), [], 1.0, 50, crew, skip)
        return [tuple(e.token_ids_T for e in next(groups)) for _ in range(n)]

    alone = ids(Crew(), 0, 6)
    assert alone[0::2] == ids(Crew(0, 2), 0, 3) and alone[1::2] == ids(Crew(1, 2), 0, 3)
    assert alone[4] == ids(Crew(0, 2), 4, 1)[0] and alone[3:] == ids(Crew(), 3, 3)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(config, collator, tmp_path, monkeypatch, examples):
    monkeypatch.setattr("playhead.train.embedded.language.BATCH_TOKENS", 600)
    monkeypatch.setattr("playhead.train.embedded.language.POOL", 8)

    def run(out, *stops: int) -> float:
        for steps in stops:
            fresh = build_model(config)
            fresh.model.visual.requires_grad_(False)
            args = argparse.Namespace(
                out=tmp_path / out, steps=steps, total=4, lr=1e-3, adam_lr=1e-3, dreams=1.0,
                direct=0.2, checks=0, guesses=0.0, kinds=KINDS, seed=7,
                no_bf16=True,
            )
            train(fresh, collator, [], {"dream": examples[:1]}, args)
        return json.loads((tmp_path / out / "curve.jsonl").read_text().splitlines()[-1])["dream"]["tokens"], fresh

    (whole, a), (parts, b) = run("whole", 4), run("parts", 2, 4)
    assert whole == parts
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)

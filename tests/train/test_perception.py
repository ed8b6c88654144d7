"""The percept code, the training frames, both trainers, and the weights that ship."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from playhead.memory.encoder import load_encoder, preprocess
from playhead.train.embedded import clip, perception
from playhead.train.embedded.codes import CODE_NORM, FACTORS, code_vectors, decode_code, frame_code, percept_code
from playhead.train.embedded.queries import ANY_DIGIT, Query, query_text, random_query
from playhead.train.embedded.reels import HELD_OUT_SEED, Reel, decode, reel_scene, resize, shoot
from playhead.train.muon import orthogonalise
from playhead.world.film import encode
from playhead.world.render import render
from playhead.world.scene import COLOURS, SHAPES

FRESH_SEED = 6_950_000
"""Reels that neither training nor its measurements use."""


@pytest.fixture(scope="module")
def reels() -> list[Reel]:
    return [shoot(seed, 64) for seed in range(FRESH_SEED, FRESH_SEED + 4)]


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    """Decoded frames at film size, (N, 3, 192, 192)."""
    scene, times = reel_scene(FRESH_SEED, 12)
    file = io.BytesIO()
    encode((render(scene, t) for t in times), file, fps=scene.fps)
    file.seek(0)
    return decode(file)


def test_code_vectors_are_orthonormal_and_decode() -> None:
    vectors = code_vectors()
    assert vectors.shape == (34, 256) and np.allclose(vectors @ vectors.T, np.eye(34), atol=1e-6)
    scene, times = reel_scene(5)
    for t in times:
        code = frame_code(scene, t)
        assert np.linalg.norm(code) == pytest.approx(CODE_NORM, rel=1e-5)
        seen, there = decode_code(code), scene.event_at(t)
        assert (seen is None) == (there is None)
        if seen is not None and there is not None:
            assert (SHAPES[seen.shape], COLOURS[seen.colour]) == (there.shape, there.colour)
            assert np.allclose(percept_code(seen), code)


def test_reels_follow_from_their_seed_and_respect_the_held_out_ones(reels: list[Reel]) -> None:
    again = shoot(FRESH_SEED, 64)
    assert again.percepts == reels[0].percepts
    assert (again.pixels.int() - reels[0].pixels.int()).abs().max() < 12  # the encoder is not exact to the bit
    empty = np.mean([p is None for reel in reels for p in reel.percepts])
    assert 0.12 < empty < 0.4
    with pytest.raises(ValueError, match="held out"):
        reel_scene(HELD_OUT_SEED)


def test_fast_path_equals_image_processor_and_tower(frames: torch.Tensor) -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    torch.manual_seed(0)
    tower = perception.build_tower().eval()
    images = [frame.permute(1, 2, 0).numpy() for frame in frames]
    inputs = Qwen2VLImageProcessor(**perception.PROCESSOR)(images=images, return_tensors="pt")
    patches = perception.patchify(resize(frames))
    assert torch.allclose(inputs["pixel_values"], patches.flatten(0, 1), atol=1e-6)
    with torch.no_grad():
        theirs = tower(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        ours = perception.FastTower(tower)(patches)
    assert ours.shape == (len(frames), 4, 256)
    assert (theirs - ours.flatten(0, 1)).abs().max() < 1e-5


def test_clip_sees_what_the_encoder_prepares(frames: torch.Tensor) -> None:
    images = [frame.permute(1, 2, 0).numpy() for frame in frames]
    theirs = preprocess(images, 64, [0.5] * 3, [0.5] * 3)
    assert torch.allclose(theirs, clip.normalise(resize(frames)), atol=1e-5)


def test_orthogonalise_evens_out_singular_values() -> None:
    for shape in ((3, 40, 20), (2, 16, 48)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.4 and values.max() < 1.4


def test_queries_match_what_they_ask_for() -> None:
    scene, times = reel_scene(5)
    percept = next(p for p in (decode_code(frame_code(scene, t)) for t in times) if p is not None and p.digit)
    assert Query(shape=percept.shape, colour=percept.colour).matches(percept)
    assert Query(digit=percept.digit - 1).matches(percept) and Query(digit=ANY_DIGIT).matches(percept)
    assert not Query(colour=(percept.colour + 1) % 6, shape=percept.shape).matches(percept)
    assert Query(empty=True).matches(None) and not Query(empty=True).matches(percept) and not Query().matches(None)
    rng = np.random.default_rng(0)
    for query in (random_query(rng) for _ in range(300)):
        text = query_text(query, rng)
        assert query.shape is None or SHAPES[query.shape] in text
        assert query.colour is None or COLOURS[query.colour] in text


def test_match_loss_wants_every_answering_frame_on_top() -> None:
    matches = torch.tensor([[True, True, False], [False, False, False]])
    good = clip.match_loss(torch.tensor([[9.0, 8.0, 0.0], [0.0, 0.0, 0.0]]), matches)
    bad = clip.match_loss(torch.tensor([[9.0, 0.0, 8.0], [0.0, 0.0, 0.0]]), matches)
    assert good < 0.01 and bad > 2


@pytest.mark.parametrize("trainer", [perception, clip])
def test_trainers_run_stop_and_go_on(trainer, tmp_path: Path) -> None:
    arguments = ["--smoke", "--out", str(tmp_path)]
    assert trainer.main([*arguments, "--steps", "2"])["steps"] == 2
    assert trainer.main([*arguments, "--steps", "3"])["steps"] == 3
    assert json.loads((tmp_path / "metrics.json").read_text())["steps"] == 3
    assert not list(tmp_path.glob("*part"))
    if trainer is clip:
        assert load_encoder(f"local-dir:{tmp_path}").encode_text(["red star"]).shape == (1, 128)
    else:
        assert sum(p.numel() for p in perception.load_tower(tmp_path).parameters()) < 2_200_000


def test_shipped_tower_reads_fresh_frames(reels: list[Reel]) -> None:
    metrics = perception.measure(perception.load_tower(), reels)
    least = {"nothing_or_object": 0.995, "shape": 0.98, "colour": 0.99, "x": 0.88, "y": 0.88, "digit": 0.96}
    assert {k: metrics[k] for k, floor in least.items() if metrics[k] < floor} == {}
    assert sum(FACTORS.values()) == 34


def test_shipped_clip_ranks_fresh_frames(reels: list[Reel]) -> None:
    encoder = load_encoder("embedded")
    images = [frame.permute(1, 2, 0).numpy() for reel in reels for frame in reel.pixels]
    percepts = [percept for reel in reels for percept in reel.percepts]
    vectors = torch.from_numpy(encoder.encode_images(images))
    seen = [percept for percept in percepts if percept is not None][::24]
    queries = [("nothing", Query(empty=True))]
    for percept in seen:
        queries.append((f"{COLOURS[percept.colour]} {SHAPES[percept.shape]}", Query(percept.shape, percept.colour)))
        queries.append((SHAPES[percept.shape], Query(shape=percept.shape)))
        queries.append((COLOURS[percept.colour], Query(colour=percept.colour)))
    texts = encoder.encode_text([text for text, _ in queries])
    for (text, query), vector in zip(queries, texts, strict=True):
        matches = clip.match_table([query], percepts)[0]
        assert clip.ranking(vectors @ torch.from_numpy(vector), matches)[0] > 0.98, text

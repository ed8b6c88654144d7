"""The transformers policy: caching changes nothing but the work, sampling is reproducible, failures stay with their request."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest
from playhead.agent.policies.transformers import TransformersPolicy, placeholder_runs, rope_positions
from playhead.agent.prompts import CAPTION_PROMPT, first_messages
from playhead.core.errors import ModelError
from playhead.core.nouns import FinishReason, Frame, Message
from playhead.core.policy import GenerateRequest, Sampling

torch = pytest.importorskip("torch")


def frame(t: float, width: int = 64, height: int = 64) -> Frame:
    return Frame(video_id="v", timestamp_s=t, sha256=f"{int(t * 1000):016x}", width=width, height=height)


@pytest.fixture(scope="module")
def policy(checkpoint, store):
    return TransformersPolicy.load(checkpoint, store)


def run(policy, *requests):
    return asyncio.run(policy.generate(requests))


def opening(policy, frames=(), session="s", **sampling) -> GenerateRequest:
    messages = first_messages(100.0, frames, CAPTION_PROMPT)
    start = policy.renderer.start(messages, ())
    return GenerateRequest(
        session=session, token_ids=start.token_ids, frames=start.frames, messages=messages, sampling=Sampling(**sampling)
    )


def full_logprobs(policy, ids, frames, n, temperature):
    """Log-probs of the last `n` of `ids` by the model's own forward over everything at once."""
    row = torch.tensor([ids])
    pixels, grids = policy.renderer.pixel_inputs(frames, policy.store)
    policy.model.model.rope_deltas = None
    with torch.no_grad():
        logits = policy.model(
            input_ids=row, attention_mask=torch.ones_like(row), pixel_values=pixels, image_grid_thw=grids,
            mm_token_type_ids=(row == policy.renderer.image_token_id).int(),
        ).logits[0]  # fmt: skip
    logp = torch.log_softmax(logits / temperature, -1)
    at = range(len(ids) - n - 1, len(ids) - 1)
    return [float(logp[i, ids[i + 1]]) for i in at]


def test_cached_turns_equal_a_full_recompute(policy):
    request = opening(policy, [frame(1), frame(2, 200, 90)], session="turns", temperature=0.8, max_tokens=24, seed=3)
    new_tokens = len(request.token_ids)
    for turn in range(4):
        before = len(request.token_ids)
        (said,) = run(policy, request)
        assert len(said.logprobs) == len(said.token_ids) and said.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)
        ids = request.token_ids + said.token_ids
        expected = full_logprobs(policy, ids, request.frames, len(said.token_ids), 0.8)
        assert max(abs(a - b) for a, b in zip(expected, said.logprobs, strict=True)) <= 1e-4
        assert said.prefill_tokens + said.reused_tokens == before
        assert said.prefill_tokens <= new_tokens + 1
        shown = (frame(10 + turn), "and", frame(1), frame(20 + turn, 64, 128)) if turn != 1 else ("no frames",)
        new = policy.renderer.extend(said.token_ids, [Message(role="tool", content=shown)])
        new_tokens = len(new.token_ids)
        request = dataclasses.replace(request, token_ids=ids + new.token_ids, frames=request.frames + new.frames)


def test_positions_are_those_of_the_model(policy):
    request = opening(policy, [frame(1), frame(2, 200, 90), frame(3, 64, 128)])
    ids, grids = torch.tensor([request.token_ids]), policy.renderer.image_grids(request.frames)
    runs = placeholder_runs(request.token_ids, request.frames, policy.renderer)
    types = (ids == policy.renderer.image_token_id).int()
    expected, _ = policy.model.model.get_rope_index(ids, types, image_grid_thw=torch.tensor(grids))
    assert (torch.from_numpy(rope_positions(ids.shape[1], runs, grids, 2)) == expected[:, 0]).all()


def test_a_frame_changed_under_the_same_tokens_is_seen(policy):
    a = opening(policy, [frame(5), frame(6)], session="swap", max_tokens=4)
    (first,) = run(policy, a)
    b = dataclasses.replace(a, frames=(frame(5), dataclasses.replace(frame(6), sha256="abc")))
    (swapped,) = run(policy, b)
    (fresh,) = run(policy, dataclasses.replace(b, session="fresh"))
    assert 0 < swapped.reused_tokens < first.prefill_tokens
    assert swapped.token_ids == fresh.token_ids
    assert swapped.logprobs == pytest.approx(fresh.logprobs, abs=1e-4)
    assert swapped.logprobs != pytest.approx(first.logprobs, abs=1e-3)


def test_sampling_follows_the_seed_and_never_writes_placeholders(policy):
    requests = [opening(policy, session=f"seed{s}", temperature=3.0, max_tokens=40, seed=s) for s in (1, 2)]
    one, two = run(policy, *requests)
    again = run(policy, *(dataclasses.replace(r, session=r.session + "b") for r in reversed(requests)))
    assert (again[1].token_ids, again[0].token_ids) == (one.token_ids, two.token_ids)
    assert one.token_ids != two.token_ids
    assert not {*one.token_ids, *two.token_ids} & set(policy.renderer.suppressed_token_ids)
    (nucleus,) = run(policy, opening(policy, session="p", temperature=3.0, top_p=1e-9, max_tokens=8))
    (greedy,) = run(policy, opening(policy, session="g", max_tokens=8))
    assert nucleus.token_ids == greedy.token_ids


def test_memory_is_bounded_and_an_evicted_session_gives_the_same(checkpoint, store):
    small = TransformersPolicy.load(checkpoint, store, cache_bytes=1, vision_bytes=1)
    request = opening(small, [frame(1), frame(2)], max_tokens=6)
    (a,), (b,) = run(small, request), run(small, request)
    assert len(small.engine.tree) == 0 and len(small.engine.vision) == 0
    assert a.token_ids == b.token_ids and b.reused_tokens == 0


def test_a_time_limit_ends_a_request(policy):
    (none,) = run(policy, opening(policy, [frame(1)], session="t0", timeout_s=-1.0, max_tokens=500))
    assert none.finish_reason is FinishReason.TIMEOUT and none.token_ids == ()
    (some,) = run(policy, opening(policy, [frame(1)], session="t1", timeout_s=0.2, temperature=5.0, max_tokens=100_000))
    assert some.finish_reason in (FinishReason.TIMEOUT, FinishReason.STOP)


def test_one_bad_request_leaves_the_others_alone(policy):
    good = opening(policy, [frame(1)], session="good", max_tokens=4)
    bad = dataclasses.replace(good, session="bad", frames=())
    broken, fine = run(policy, bad, good)
    assert broken.finish_reason is FinishReason.ERROR and "placeholders" in broken.text
    assert fine.finish_reason is FinishReason.LENGTH and len(fine.token_ids) == 4


def test_checkpoints_that_cannot_be_used_are_refused_in_one_line(checkpoint, store, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def refused(spec) -> str:
        with pytest.raises(ModelError) as error:
            TransformersPolicy.load(spec, store)
        assert "\n" not in str(error.value) and str(spec) in str(error.value)
        return str(error.value)

    assert "no model there" in refused(tmp_path / "nowhere")
    refused("somebody/not-in-the-cache")
    config = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text('{"model_type": "bert"}')
    assert "bert" in refused(tmp_path / "other")
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow/config.json").write_text(json.dumps(config))
    assert "weights" in refused(tmp_path / "hollow")
    (tmp_path / "hollow/model.safetensors").write_bytes(b"\x08garbage")
    assert "weights" in refused(tmp_path / "hollow")
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    name = sorted(weights)[0]
    del weights[name]
    save_file(weights, tmp_path / "hollow/model.safetensors", metadata={"format": "pt"})
    assert "missing" in refused(tmp_path / "hollow")

"""The engine changes the work, never the result: reuse, forks, ragged batches and eviction against a full recompute."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from playhead.agent.prompts import first_messages
from playhead.core.nouns import FinishReason, Frame, Message
from playhead.core.policy import GenerateRequest, Sampling

torch = pytest.importorskip("torch")


def frame(t: float, width: int = 64, height: int = 64) -> Frame:
    return Frame(video_id="v", timestamp_s=t, sha256=f"{int(t * 1000):016x}", width=width, height=height)


class Bench:
    """A loaded model, its renderer, and engines around them, whose logits are written down as tokens are drawn from them."""

    def __init__(self, folder, store) -> None:
        from playhead.agent.families import family_of
        from playhead.agent.policies.loading import LoadOptions, load_checkpoint

        self.model, self.renderer = load_checkpoint(str(folder), "cpu", LoadOptions())
        self.model.eval()
        self.family, self.store = family_of(self.model, self.renderer), store
        self.seen: dict[int, tuple] = {}
        """By the request's id: the request, which so keeps it, and the logits of its latest completion by step."""

    def engine(self, **limits):
        from playhead.agent.engine.scheduler import Engine

        engine = Engine(self.family, self.renderer, self.store, **limits)
        rows_of = engine._rows

        def watched(jobs):
            rows = rows_of(jobs)
            draw = rows.draw

            def drawn(logits_1BV):
                for job, logits_V in zip(jobs, logits_1BV[0], strict=True):
                    self.seen.setdefault(id(job.request), (job.request, {}))[1][len(job.sampled)] = logits_V.clone()
                return draw(logits_1BV)

            rows.draw = drawn
            return rows

        engine._rows = watched
        return engine

    def opening(self, frames: Sequence[Frame] = (), question: str = "What?", session="s", **sampling) -> GenerateRequest:
        messages = first_messages(100.0, tuple(frames), question)
        start = self.renderer.start(messages, ())
        return GenerateRequest(
            session=session, token_ids=start.token_ids, frames=start.frames, messages=messages, sampling=Sampling(**sampling)
        )

    def follow(self, request: GenerateRequest, said, *content) -> GenerateRequest:
        new = self.renderer.extend(said.token_ids, [Message(role="user", content=content)])
        ids = request.token_ids + said.token_ids + new.token_ids
        return dataclasses.replace(request, token_ids=ids, frames=request.frames + new.frames)

    def full_logits(self, ids: Sequence[int], frames: Sequence[Frame]):
        """(T, V), by the model's own forward over everything at once."""
        row = torch.tensor([ids])
        given = {"input_ids": row, "attention_mask": torch.ones_like(row)}
        pixels = self.renderer.pixel_inputs(frames, self.store)
        if isinstance(pixels, tuple):
            given |= {"pixel_values": pixels[0], "image_grid_thw": pixels[1]}
            given["mm_token_type_ids"] = (row == self.renderer.image_token_id).int()
            self.model.model.rope_deltas = None
        else:
            given["pixel_values"] = pixels[None]
        with torch.no_grad():
            return self.model(**given).logits[0]

    def error(self, request: GenerateRequest, said) -> float:
        """Largest difference of a completion's logits and log-probs from a full recompute; with greedy sampling, tokens must
        agree. To be asked before the same request is run again."""
        n, temperature = len(said.token_ids), request.sampling.temperature
        logits = self.full_logits(request.token_ids + said.token_ids, request.frames)[-n - 1 : -1]
        expected = torch.log_softmax(logits / (temperature or 1.0), -1)
        if not temperature:
            allowed = expected.index_fill(1, torch.tensor(self.renderer.suppressed_token_ids), float("-inf"))
            assert allowed.argmax(-1).tolist() == list(said.token_ids)
        chosen = expected.gather(1, torch.tensor(said.token_ids)[:, None])[:, 0]
        own = torch.stack([self.seen[id(request)][1][step] for step in range(n)])
        return max(float((own - logits).abs().max()), float((chosen - torch.tensor(said.logprobs)).abs().max()))


@pytest.fixture(scope="module")
def any_bench(family, store) -> Bench:
    return Bench(family.folder, store)


async def episode(bench: Bench, engine, k: int, turns: int = 5) -> list:
    """(request, completion) of each turn; even episodes are greedy, all begin with the same frames."""
    request = bench.opening(
        [frame(1), frame(2, 90, 64)], f"What is {k}?", session=f"e{k}", temperature=0.8 * (k % 2), max_tokens=5 + k, seed=k
    )
    done = []
    for turn in range(turns):
        (said,) = await engine.generate([request])
        done.append((request, said))
        request = bench.follow(request, said, "Look: ", frame(10 + turn + 100 * k), " and ", frame(50 + turn, 64, 96), "?")
    return done


@pytest.mark.parametrize(("budget", "prefill"), [(1 << 30, 1024), (90_000, 1024), (1, 61)])
def test_five_turns_with_new_frames_equal_a_full_recompute(any_bench, budget, prefill):
    engine = any_bench.engine(cache_bytes=budget, vision_bytes=budget, prefill_tokens=prefill)

    async def together():
        return await asyncio.gather(*(episode(any_bench, engine, k) for k in range(2 if budget == 1 else 3)))

    episodes = asyncio.run(together())
    for turns in episodes:
        for before, (request, said) in zip([None, *turns], turns, strict=False):
            assert said.finish_reason in (FinishReason.LENGTH, FinishReason.STOP), said.text
            assert any_bench.error(request, said) <= 1e-4
            assert said.prefill_tokens + said.reused_tokens == len(request.token_ids)
            if budget > 1 << 20 and before is not None:  # all but the last sampled token was there
                assert said.reused_tokens == len(before[0].token_ids + before[1].token_ids) - 1
    if budget > 1 << 20:
        assert engine.vision.encoded == len({f.sha256 for t in episodes for f in t[-1][0].frames})
        assert sum(t[0][1].reused_tokens > 20 for t in episodes) == 2  # the frames at the start were prefilled once
    else:
        assert engine.tree is not None and engine.tree.nbytes <= budget


@pytest.mark.parametrize(("share", "kept"), [(1.05, True), (0.95, False)])
def test_a_context_is_kept_where_it_fits_and_told_of_where_it_does_not(any_bench, caplog, share, kept):
    first = any_bench.opening([frame(1), frame(2)], max_tokens=6)
    tree = any_bench.engine()._stepper.cache_shapes()
    a_token = sum(shape.token_bytes for shape in tree)

    async def two_turns(engine):
        (said,) = await engine.generate([first])
        second = any_bench.follow(first, said, "Look: ", frame(3), "?")
        return said, second, (await engine.generate([second]))[0]

    _, second, usual = asyncio.run(two_turns(any_bench.engine()))
    whole = len(second.token_ids) + len(usual.token_ids)
    engine = any_bench.engine(cache_bytes=int(share * whole * a_token))
    _, _, again = asyncio.run(two_turns(engine))
    assert again.token_ids == usual.token_ids
    third = dataclasses.replace(second, token_ids=second.token_ids + again.token_ids)
    (last,) = asyncio.run(engine.generate([dataclasses.replace(third, sampling=Sampling(max_tokens=1))]))
    if kept:
        assert again.reused_tokens == usual.reused_tokens and last.reused_tokens == whole - 1
    else:
        assert last.reused_tokens == 0
    assert sum("cache_gb" in r.message for r in caplog.records) == (not kept), "said once, if ever"


def test_a_context_that_goes_on_from_another_is_the_one_made_from_nothing(any_bench):
    from playhead.agent.engine.context import Context

    said = SimpleNamespace(token_ids=any_bench.renderer.encode("a ring"))
    requests = [any_bench.opening([frame(1), frame(2, 90, 64)])]
    for shown in ([frame(3)], [frame(4, 64, 96), frame(1)], []):
        requests.append(any_bench.follow(requests[-1], said, "Look: ", *shown, "?"))
    other = dataclasses.replace(requests[1], frames=(*requests[1].frames[:-1], frame(9)))
    parts = (any_bench.renderer, any_bench.family)
    fresh = [Context(r.token_ids, r.frames, *parts) for r in (*requests, other)]
    before = [{k: np.copy(v) for k, v in vars(c).items()} for c in fresh[:-1]]
    pairs = [(fresh[i].extended(r.token_ids, r.frames, *parts), fresh[j])
             for i, j, r in ((0, 1, requests[1]), (0, 3, requests[3]), (1, 2, requests[2]), (2, 3, requests[3]),
                             (1, 4, other), (2, 0, requests[0]), (1, 1, requests[1]))]  # fmt: skip
    for made, expected in pairs:
        assert (made.ids, made.frames, made.next_position) == (expected.ids, expected.frames, expected.next_position)
        assert np.array_equal(made.ids_T, expected.ids_T) and np.array_equal(made.keys_T, expected.keys_T)
        assert np.array_equal(made.positions_AT, expected.positions_AT)
        spans = [(a, a + n) for a in range(len(expected)) for n in (1, 7, len(expected) - a)]
        assert [made.shown(*s) for s in spans] == [expected.shown(*s) for s in spans]
    assert all(np.array_equal(kept[k], v) for c, kept in zip(fresh, before, strict=False) for k, v in vars(c).items())


def test_features_are_kept_and_dropped_with_the_output_they_are_slices_of(any_bench):
    """So the bytes that are counted are the bytes that are held, for every family."""
    vision = any_bench.engine(vision_bytes=1 << 30).vision
    first, second = [frame(1), frame(2, 90, 64)], [frame(3)]
    with torch.inference_mode():
        features = vision.get(first)
        parts = [t.untyped_storage() for f in features.values() for t in (f.image_ND, *f.deepstack)]
        assert sum({part.data_ptr(): part.nbytes() for part in parts}.values()) == vision.nbytes
        one, vision._max_bytes = vision.nbytes, vision.nbytes
        vision.get(second)
        assert len(vision) == 1 and vision.nbytes < one, "both frames of the first went, and only they"
        vision.get(first[:1])
        assert (len(vision), vision.encoded) == (2, 4) and vision.nbytes <= one
    vision.clear()
    assert (len(vision), vision.nbytes) == (0, 0)


def test_samples_of_one_prompt_prefill_it_once(any_bench):
    request = any_bench.opening([frame(1), frame(2)], temperature=1.0, max_tokens=10)
    n = len(request.token_ids)
    requests = [
        dataclasses.replace(request, session=f"s{i}", sampling=dataclasses.replace(request.sampling, seed=i))
        for i in range(8)
    ]
    engine = any_bench.engine()
    said = asyncio.run(engine.generate(requests))
    assert sum(s.prefill_tokens for s in said) == n + 7
    assert engine.vision.encoded == 2
    assert max(any_bench.error(r, s) for r, s in zip(requests, said, strict=True)) <= 1e-4
    alone = [asyncio.run(any_bench.engine().generate([r]))[0] for r in requests]
    assert [a.token_ids for a in alone] == [s.token_ids for s in said]
    assert len({s.token_ids for s in said}) > 1


def test_a_branch_reuses_its_parent_and_leaves_it_alone(any_bench):
    engine = any_bench.engine()

    async def tree():
        request = any_bench.opening([frame(1)], max_tokens=8)
        (said,) = await engine.generate([request])
        left = any_bench.follow(request, said, "Left ", frame(3))
        right = any_bench.follow(request, said, "Right ", frame(3))
        cut = dataclasses.replace(request, token_ids=request.token_ids + said.token_ids[:3])
        requests = [left, right, cut]
        return request, said, requests, await engine.generate(requests)

    request, said, requests, branches = asyncio.run(tree())
    shared = len(request.token_ids) + len(said.token_ids) - 1
    assert [b.reused_tokens >= shared for b in branches] == [True, True, False]
    assert branches[2].reused_tokens == len(requests[2].token_ids) - 1
    assert branches[2].token_ids[:5] == said.token_ids[3:]
    assert max(any_bench.error(r, b) for r, b in zip(requests, branches, strict=True)) <= 1e-4


def test_the_same_tokens_over_other_pixels_are_another_context(any_bench):
    engine = any_bench.engine()
    a = any_bench.opening([frame(5), frame(6)], max_tokens=4)
    b = dataclasses.replace(a, frames=(frame(5), dataclasses.replace(frame(6), sha256="abc")))
    (first, swapped) = (asyncio.run(engine.generate([r]))[0] for r in (a, b))
    assert 0 < swapped.reused_tokens < len(a.token_ids) - 10
    assert any_bench.error(a, first) <= 1e-4 and any_bench.error(b, swapped) <= 1e-4


def test_a_seed_draws_the_same_tokens_alone_and_in_a_crowd(any_bench):
    crowd = [
        any_bench.opening([frame(i % 3)], f"Question {'x' * i}", f"c{i}", temperature=1.5, top_p=0.9, max_tokens=8, seed=i)
        for i in range(16)
    ]
    said = asyncio.run(any_bench.engine().generate(crowd))
    assert max(any_bench.error(r, s) for r, s in zip(crowd, said, strict=True)) <= 1e-4
    again = asyncio.run(any_bench.engine(max_batch=3, cache_bytes=60_000).generate(crowd[::-1]))[::-1]
    assert max(any_bench.error(r, s) for r, s in zip(crowd, again, strict=True)) <= 1e-4
    alone = [asyncio.run(any_bench.engine().generate([r]))[0] for r in crowd]
    assert [s.token_ids for s in said] == [a.token_ids for a in alone] == [a.token_ids for a in again]


def test_a_model_in_use_can_still_be_trained(any_bench):
    ids = torch.tensor([any_bench.opening().token_ids])
    expected = any_bench.full_logits(any_bench.opening([frame(1)]).token_ids, [frame(1)])
    asyncio.run(any_bench.engine().generate([any_bench.opening([frame(1)], max_tokens=2)]))
    assert torch.equal(any_bench.full_logits(any_bench.opening([frame(1)]).token_ids, [frame(1)]), expected)
    loss = any_bench.model(input_ids=ids.repeat(2, 1), attention_mask=torch.ones(2, ids.shape[1]), labels=ids.repeat(2, 1)).loss
    loss.backward()
    any_bench.model.zero_grad()

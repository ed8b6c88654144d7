"""Many requests at once: each ends once, in its own way, whatever happens to the others."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import numpy as np
import pytest
from playhead.agent.prompts import first_messages
from playhead.core.nouns import FinishReason, Frame
from playhead.core.policy import GenerateRequest, Sampling

torch = pytest.importorskip("torch")
LOST = "dead"


def frame(t: float, sha: str = "") -> Frame:
    return Frame(video_id="v", timestamp_s=t, sha256=sha or f"{int(t * 1000):016x}", width=64, height=64)


class LossyStore:
    """Noise for every frame but one that cannot be read."""

    def pixels(self, frame: Frame) -> np.ndarray:
        if frame.sha256 == LOST:
            raise OSError("the frame is gone")
        return np.random.default_rng(int(frame.sha256, 16) % 2**32).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def loaded(checkpoint):
    from playhead.agent.families import family_of
    from playhead.agent.policies.loading import LoadOptions, load_checkpoint

    model, renderer = load_checkpoint(str(checkpoint), "cpu", LoadOptions())
    return family_of(model.eval(), renderer), renderer


@pytest.fixture
def engine(loaded):
    from playhead.agent.engine.scheduler import Engine

    return lambda **limits: Engine(*loaded, LossyStore(), **limits)


@pytest.fixture
def ask(loaded):
    def ask(i: int, *frames: Frame, **sampling) -> GenerateRequest:
        messages = first_messages(100.0, frames, f"Number {i}?")
        start = loaded[1].start(messages, ())
        return GenerateRequest(
            session=f"q{i}", token_ids=start.token_ids, frames=start.frames, messages=messages, sampling=Sampling(**sampling)
        )

    return ask


def test_two_hundred_with_faults_under_a_small_budget(engine, ask):
    small = engine(cache_bytes=400_000, vision_bytes=20_000, max_batch=24)

    def request(i: int) -> GenerateRequest:
        good = ask(i, frame(i % 7), max_tokens=3, temperature=1.0, seed=i)
        if i % 20 == 0:
            return dataclasses.replace(good, frames=())
        if i % 20 == 10:
            return dataclasses.replace(good, frames=(frame(1, LOST),))
        return good

    async def crowd():
        tasks = [asyncio.create_task(small.generate([request(i)])) for i in range(200)]
        tasks[33].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    ended = asyncio.run(crowd())
    assert isinstance(ended[33], asyncio.CancelledError)
    reasons = [said[0].finish_reason for i, said in enumerate(ended) if i != 33]
    assert [r is FinishReason.ERROR for r in reasons] == [i % 10 == 0 for i in range(200) if i != 33]
    assert all(1 <= len(said[0].token_ids) <= 3 for i, said in enumerate(ended) if i % 10 and i != 33)
    assert small.tree.nbytes <= 400_000 and small.vision.nbytes <= 20_000
    assert not small._running and not small._waiting and not any(n.busy for n in small.tree._nodes())


def test_a_pass_that_fails_is_repeated_without_the_culprit(engine, ask, loaded, monkeypatch):
    family = loaded[0]
    poison, hidden = 7, family.hidden

    def fragile(ids, *args, **kwargs):
        if (ids == poison).any():
            raise RuntimeError("out of something")
        return hidden(ids, *args, **kwargs)

    monkeypatch.setattr(family, "hidden", fragile)
    good, bad = ask(1, frame(1), max_tokens=4), ask(2, frame(2), max_tokens=4)
    bad = dataclasses.replace(bad, token_ids=(*bad.token_ids, poison))
    fine, broken, also = asyncio.run(engine().generate([good, bad, ask(3, max_tokens=4)]))
    assert broken.finish_reason is FinishReason.ERROR and "out of something" in broken.text
    monkeypatch.undo()
    assert fine.token_ids == asyncio.run(engine().generate([good]))[0].token_ids
    assert also.finish_reason is not FinishReason.ERROR


async def passes(engine, count: int) -> None:
    """Wait until so many more passes were run."""
    target = engine.passes + count

    async def wait() -> None:
        while engine.passes < target:
            await asyncio.sleep(0.001)

    await asyncio.wait_for(wait(), 120)


def test_cancelling_frees_the_place_and_spares_the_others(engine, ask):
    one = engine(max_batch=1)
    one._stops = frozenset()  # it would go on for ever

    async def scene():
        hog = asyncio.create_task(one.generate([ask(1, max_tokens=10**6)]))
        await passes(one, 3)
        other = asyncio.create_task(one.generate([ask(2, max_tokens=3)]))
        await passes(one, 3)
        assert not other.done()
        hog.cancel()
        return await asyncio.wait_for(other, 120)

    (said,) = asyncio.run(scene())
    assert said.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)


def test_time_limits_are_each_requests_own(engine, ask):
    one = engine()
    one._stops = frozenset()
    requests = [ask(1, timeout_s=-1.0, max_tokens=9), ask(2, timeout_s=0.3, max_tokens=10**6), ask(3, max_tokens=9)]
    never, short, long = asyncio.run(one.generate(requests))
    assert never.finish_reason is FinishReason.TIMEOUT and never.token_ids == ()
    assert short.finish_reason is FinishReason.TIMEOUT
    assert long.finish_reason is FinishReason.LENGTH and len(long.token_ids) == 9


def test_new_weights_begin_again(engine, ask, loaded, monkeypatch):
    one, plain = engine(), engine()
    one._stops = plain._stops = frozenset()
    family, reached, go = loaded[0], threading.Event(), threading.Event()
    hidden, calls = family.hidden, []

    def held(*args, **kwargs):
        calls.append(1)
        if len(calls) == 6:  # the middle of the first attempt
            reached.set()
            assert go.wait(120)
        return hidden(*args, **kwargs)

    async def scene():
        task = asyncio.create_task(one.generate([ask(1, frame(1), max_tokens=20)]))
        assert await asyncio.to_thread(reached.wait, 120)
        changing = asyncio.create_task(asyncio.to_thread(one.weights_changed))
        while not one._pausing:
            await asyncio.sleep(0.001)
        go.set()
        await changing
        return (await task)[0]

    with monkeypatch.context() as patched:
        patched.setattr(family, "hidden", held)
        said = asyncio.run(asyncio.wait_for(scene(), 240))
    (plain,) = asyncio.run(plain.generate([ask(1, frame(1), max_tokens=20)]))
    assert said.policy_version == 1 and said.token_ids == plain.token_ids and said.reused_tokens == 0
    assert len(calls) > 20 + 5, "begun again"


def test_a_forgotten_session_goes_first(engine, ask):
    one = engine()
    for i in (1, 2, 3):
        asyncio.run(one.generate([ask(i, frame(i), max_tokens=2)]))
    one.forget("q3")
    asyncio.run(one.generate([ask(4, max_tokens=2)]))
    one.tree.make_room(one.tree.max_bytes - one.tree.nbytes + 1)
    held = [node for node in one._tails.values() if node.length]
    assert len(held) == 3 and "q3" not in one._tails


def test_the_thread_ends_when_nobody_asks(engine, ask, monkeypatch):
    from playhead.agent.engine import scheduler

    monkeypatch.setattr(scheduler, "LINGER_S", 0.05)
    one = engine()
    asyncio.run(one.generate([ask(1, max_tokens=2)]))
    thread = one._thread
    if thread is not None:
        thread.join(120)
    assert one._thread is None
    assert asyncio.run(one.generate([ask(1, max_tokens=2)]))[0].token_ids

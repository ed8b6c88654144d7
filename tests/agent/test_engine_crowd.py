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


class Trio:
    """Three requests at once, of which the second is faulty, beside what each says when nothing is wrong."""

    def __init__(self, engine, ask) -> None:
        self._engine = engine
        kinds = {1: (8, 0.8), 2: (14, 0.8), 3: (20, 0.0)}
        self.requests = [ask(i, frame(i), max_tokens=n, temperature=t, seed=i) for i, (n, t) in kinds.items()]
        self.usual = [asyncio.run(self.fresh().generate([r]))[0] for r in self.requests]

    def fresh(self):
        one = self._engine()
        one._stops = frozenset()
        return one

    def run(self, failing=(1,)) -> list:
        """All calls return, those of `failing` with an error and the others with what they usually say."""
        one, requests = self.fresh(), self.requests

        async def at_once():
            return await asyncio.wait_for(asyncio.gather(*(one.generate([r]) for r in requests)), 60)

        said = [s for (s,) in asyncio.run(at_once())]
        assert [i for i, s in enumerate(said) if s.finish_reason is FinishReason.ERROR] == list(failing), said
        for s, usual in zip(said, self.usual, strict=True):
            if s.finish_reason is not FinishReason.ERROR:
                assert s.token_ids == usual.token_ids and s.logprobs == pytest.approx(usual.logprobs, abs=1e-4)
        assert not one._running and not one._waiting and not one._open
        assert not any(n.busy for n in one.tree._nodes())
        assert one.tree.nbytes == sum(n.capacity for n in one.tree._nodes()) * one.tree.token_bytes
        return said


@pytest.fixture
def trio(engine, ask) -> Trio:
    return Trio(engine, ask)


def is_faulty(job) -> bool:
    return job.request.session == "q2"


def test_a_text_that_cannot_be_told_is_one_requests_failure(trio, loaded, monkeypatch):
    renderer = loaded[1]
    tell, unspeakable = renderer.completion_text, list(trio.usual[1].token_ids)

    def fragile(ids):
        if list(ids) == unspeakable:
            raise ValueError("no such text")
        return tell(ids)

    monkeypatch.setattr(renderer, "completion_text", fragile)
    assert "no such text" in trio.run()[1].text


@pytest.mark.parametrize("call", [1, 2, 5], ids=["when let in", "before its first pass", "while decoding"])
def test_memory_that_cannot_be_had_is_one_requests_failure(trio, monkeypatch, call):
    from playhead.agent.engine.cache import PrefixTree
    from playhead.agent.engine.tails import Tails

    reserve, calls = PrefixTree.reserve, []

    def fragile(tree, node, tokens):
        calls.extend([1] * is_faulty(node.owner))
        if is_faulty(node.owner) and len(calls) >= call:
            raise torch.OutOfMemoryError("no memory")
        reserve(tree, node, tokens)

    monkeypatch.setattr(PrefixTree, "reserve", fragile)
    if call > 2:  # single passes, which ask every time
        monkeypatch.setattr(Tails, "of", broken)
    assert "no memory" in trio.run()[1].text and len(calls) == call


def broken(*args, **kwargs):
    raise RuntimeError("out of something")


def test_memory_of_unused_caches_goes_before_a_request_fails(trio, monkeypatch):
    from playhead.agent.engine.cache import PrefixTree

    one, reserve = trio.fresh(), PrefixTree.reserve
    asyncio.run(one.generate(trio.requests[::2]))

    def tight(tree, node, tokens):
        if any(not n.busy and not n.children for n in tree._nodes()):
            raise torch.OutOfMemoryError("no memory")
        reserve(tree, node, tokens)

    monkeypatch.setattr(PrefixTree, "reserve", tight)
    (said,) = asyncio.run(one.generate(trio.requests[1:2]))
    assert said.token_ids == trio.usual[1].token_ids


@pytest.mark.parametrize("what", ["the set-up", "a pass", "taking in", "putting back", "drawing"])
def test_decoding_goes_on_in_single_passes_when_it_fails_side_by_side(trio, monkeypatch, caplog, what):
    """Nobody is at fault, so nobody fails: tokens and log-probs are the usual ones, whatever was half done."""
    from playhead.agent.engine.sample import Rows
    from playhead.agent.engine.steady import Steady
    from playhead.agent.engine.tails import Tails

    owner, name = {
        "the set-up": (Steady, "__init__"), "a pass": (Tails, "attend"), "taking in": (Tails, "advance"),
        "putting back": (Tails, "put_back"), "drawing": (Rows, "draw"),
    }[what]  # fmt: skip
    usual, calls = getattr(owner, name), []

    def fragile(self, *args, **kwargs):
        calls.append(1)
        if what in ("the set-up", "putting back") or len(calls) % 8 == 0:  # 8: the second layer of a later pass
            raise RuntimeError("out of something")
        return usual(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, fragile)
    trio.run(failing=())
    assert len(calls) >= 2 and sum("out of something" in r.message for r in caplog.records) <= 1


def test_a_poisoned_sequence_fails_alone_while_decoding_side_by_side(trio, loaded, monkeypatch):
    family, said = loaded[0], trio.usual
    others = {t for r, s in zip(trio.requests, said, strict=True) for t in r.token_ids + s.token_ids * (r.session != "q2")}
    poison = next(t for t in said[1].token_ids[3:7] if t not in others)
    hidden, widths = family.hidden, []

    def fragile(ids, *args, **kwargs):
        out = hidden(ids, *args, **kwargs)  # so all layers have written already
        if (ids == poison).any():
            widths.append(ids.shape[1])
            raise RuntimeError("out of something")
        return out

    monkeypatch.setattr(family, "hidden", fragile)
    assert "out of something" in trio.run()[1].text
    assert widths == [3, 3, 1], "side by side, in one ordinary pass, alone"


def test_who_cannot_be_given_a_token_fails_alone(trio, monkeypatch):
    from playhead.agent.engine.sample import Rows

    draw = Rows.draw

    def fragile(rows, logits_1BV):
        drawn = draw(rows, logits_1BV)  # so the random numbers are used up
        if any(n in rows._numbers for n in faulty()):
            raise RuntimeError("out of something")
        return drawn

    from playhead.agent.engine import job as jobs

    made, rewind = [], jobs.Job.rewind

    def watched(job):
        rewind(job)
        made.extend([job] * is_faulty(job))

    def faulty():
        return [job.numbers for job in made if len(job.sampled) >= 4]

    monkeypatch.setattr(jobs.Job, "rewind", watched)
    monkeypatch.setattr(Rows, "draw", fragile)
    assert "out of something" in trio.run()[1].text


@pytest.mark.parametrize("name", ["_next_tokens", "_leave", "_context"])
def test_nobody_is_left_waiting_when_the_engine_itself_fails(trio, monkeypatch, name):
    """A job that has left, or has not entered, is in no list when the exception comes."""
    from playhead.agent.engine.scheduler import Engine

    method, calls = getattr(Engine, name), []

    def fragile(self, *args):
        result = method(self, *args)
        calls.append(1)
        if len(calls) == 1:
            raise (KeyError if name == "_context" else RuntimeError)("ours")
        return result

    monkeypatch.setattr(Engine, name, fragile)
    one = trio.fresh()

    async def at_once():
        return await asyncio.wait_for(asyncio.gather(*(one.generate([r]) for r in trio.requests)), 60)

    said = [s for (s,) in asyncio.run(at_once())]
    assert any(s.finish_reason is FinishReason.ERROR for s in said)
    assert not one._open and not one._running and not one._waiting
    assert asyncio.run(one.generate(trio.requests[:1]))[0].token_ids == trio.usual[0].token_ids, "and it goes on"


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

"""The policy for OpenAI-compatible servers, against a server that fails in every way we know (`fault_server.py`): what it makes
of replies, failures, silence and secrets. What it sends is in test_openai_requests.py, the real server in
test_transformers_serve.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import threading
import time

import pytest
from fault_server import ASK, CALL, IMPATIENT, LIMITS, TOOL, chunk, no_key, request, say, serving, store_of, talk, whole
from playhead.agent.policies.openai import Dialect, Limits, OpenAIPolicy
from playhead.agent.policies.openai.slots import Slots
from playhead.agent.renderers.parsing import parse
from playhead.agent.video_agent import VideoAgent
from playhead.core.errors import ModelError
from playhead.core.nouns import FinishReason, Message, Task
from playhead.core.trajectory import to_json

__all__ = ["no_key"]
KEY = "sk-a-secret-that-nobody-may-see"


# Reading.


def test_streams_and_whole_replies_say_the_same(store):
    async def streamed(x):
        first = {"index": 0, "id": "a", "function": {"name": "search_clips", "arguments": '{"que'}}
        await say(x, "Hm", "m", calls=(first, {"index": 0, "function": {"arguments": 'ry": "red"}'}}))

    async def in_one(x):
        call = {"id": "a", "type": "function", "function": {"name": "search_clips", "arguments": '{"query": "red"}'}}
        await whole(x, {"content": "Hmm", "tool_calls": [call]})

    texts = [talk(script, store)[0][0].text for script in (streamed, in_one)]
    assert texts == [f"Hmm\n{CALL}"] * 2
    (call,) = parse(texts[0], 0).tool_calls
    assert (call.name, json.loads(call.arguments_json)) == ("search_clips", {"query": "red"})


def test_thoughts_that_the_server_split_off_come_back(store):
    async def script(x):
        await whole(x, {"content": "<answer>red</answer>", "reasoning_content": "it is red"})

    ((completion,), _, _) = talk(script, store)
    parsed = parse(completion.text, 0)
    assert (parsed.thought, parsed.answer) == ("it is red", "red")


def test_calls_left_in_the_text_are_read_too(store):
    async def script(x):
        await say(x, "<think>where?</think>\n", CALL)

    ((completion,), _, _) = talk(script, store)
    assert parse(completion.text, 0).tool_calls[0].name == "search_clips"


@pytest.mark.parametrize("arguments", ['{"query": "re', "[1]", "red </tool_call>", ""])
def test_broken_arguments_are_the_tools_to_refuse(store, arguments):
    async def script(x):
        await say(x, calls=({"index": 0, "function": {"name": "search_clips", "arguments": arguments}},))

    ((completion,), _, _) = talk(script, store)
    (call,) = parse(completion.text, 0).tool_calls
    assert call.arguments_json == (arguments or "{}")
    history = (*ASK, Message(role="assistant", content=(completion.text,)), Message(role="tool", content=("No.",)))
    _, server, _ = talk(script, store, [request(history, [TOOL])])
    sent = server.seen[0].body["messages"][2]["tool_calls"][0]["function"]["arguments"]
    assert isinstance(json.loads(sent), dict), "servers read the history's arguments as an object"
    assert arguments in ("", json.loads(sent).get("unreadable"))


def test_usage_is_the_servers(store):
    async def script(x):
        await say(x, "one two", prompt_tokens=100, completion_tokens=7)

    ((completion,), _, policy) = talk(script, store)
    assert (completion.prefill_tokens, len(completion.token_ids), completion.logprobs) == (100, 7, ())
    assert policy.renderer.decode(completion.token_ids) == completion.text == "one two"
    assert not policy.exact


def test_an_empty_turn_is_a_turn(store):
    ((completion,), _, _) = talk(lambda x: say(x), store)
    assert completion.text == "" and len(completion.token_ids) == 1 and completion.finish_reason is FinishReason.STOP


# Failing.


async def refuse_429(x):
    await x.refuse(429, Retry_After="0.2")


async def refuse_500(x):
    await x.refuse(500)


async def hang_up(x):
    pass


async def cut(x):
    await x.head(kind="text/event-stream")
    await x.event(chunk({"content": "<answer>gre"}))


async def malformed(x):
    await x.head(kind="text/event-stream")
    await x.event(b'{"choices": [{"del')


async def no_protocol(x):
    await x.head()
    await x.send(b"[]")


async def silent(x):
    await asyncio.sleep(60)


async def stalling(x):
    await x.head(kind="text/event-stream")
    await x.event(chunk({"content": "<answer>gre"}))
    await asyncio.sleep(60)


async def error_inside(x):
    await x.head(kind="text/event-stream")
    await x.event({"error": {"message": "out of memory", "code": 500}})


FAULTS = [refuse_429, refuse_500, hang_up, cut, malformed, no_protocol, silent, stalling, error_inside]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_a_fault_is_tried_again(store, fault):
    async def script(x):
        await (fault(x) if x.number == 0 else say(x, "<answer>red</answer>"))

    started = time.monotonic()
    ((completion,), server, _) = talk(script, store, limits=IMPATIENT)
    assert completion.text == "<answer>red</answer>", "nothing of the first try is left"
    assert len(server.seen) == 2 and server.seen[0].body == server.seen[1].body
    if fault is refuse_429:
        assert time.monotonic() - started >= 0.2, "Retry-After is honoured"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (refuse_500, "500 Status: no"),
        (cut, "cut short"),
        (malformed, "malformed: not JSON"),
        (no_protocol, "malformed: not a chat completion"),
        (silent, "no reply for 1 s"),
        (error_inside, "out of memory"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_tries_are_counted_and_failures_stay_alone(store, fault, why):
    good, bad = request(seed=1), request(seed=2)

    async def script(x):
        await (fault(x) if x.body["seed"] == 2 else say(x, "fine"))

    completions, server, _ = talk(script, store, [good, bad, good], IMPATIENT)
    assert [c.text for c in completions[::2]] == ["fine", "fine"]
    assert completions[1].finish_reason is FinishReason.ERROR and why in completions[1].text
    assert sum(x.body["seed"] == 2 for x in server.seen) == 2


def test_a_refusal_that_trying_again_cannot_help(store):
    async def script(x):
        await x.refuse(404, {"detail": "no such model"})

    ((completion,), server, _) = talk(script, store)
    assert completion.text == "404 Status: no such model" and len(server.seen) == 1


def test_a_long_retry_after_is_taken_at_its_word(store):
    ((completion,), server, _) = talk(lambda x: x.refuse(503, Retry_After="3600"), store)
    assert "asks to wait 3600 s" in completion.text and len(server.seen) == 1


def test_no_server_there(store):
    policy = OpenAIPolicy("http://127.0.0.1:9/v1", "m", store, limits=Limits(retries=1, backoff_s=0.01))
    (completion,) = asyncio.run(policy.generate([request()]))
    assert completion.finish_reason is FinishReason.ERROR
    assert completion.text == "no server answers at http://127.0.0.1:9/v1"


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_waits_double_up_to_a_cap_and_retries_are_counted(store, monkeypatch, share):
    slept: list[float] = []
    wait = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await wait(0)

    def jitter(low: float, high: float) -> float:
        assert (low, high) == (0.5, 1.0)
        return share

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(random, "uniform", jitter)
    limits = Limits(retries=5, backoff_s=0.5, backoff_most_s=3)
    policy = OpenAIPolicy("http://127.0.0.1:9/v1", "m", store, limits=limits)
    (completion,) = asyncio.run(policy.generate([request()]))
    assert completion.finish_reason is FinishReason.ERROR and "no server answers" in completion.text
    waits = [s for s in slept if s > 0]
    assert waits == [share * s for s in (0.5, 1, 2, 3, 3)], "one before each retry"


def test_jitter_is_drawn(store):
    server = OpenAIPolicy("http://127.0.0.1:9/v1", "m", store, limits=Limits(backoff_s=1, backoff_most_s=4)).server
    for attempt, most in enumerate((1, 2, 4, 4)):
        drawn = [server._pause(attempt, None) for _ in range(50)]
        assert all(most / 2 <= s <= most for s in drawn) and len(set(drawn)) > 1
        assert all(7 + most / 2 <= server._pause(attempt, 7.0) <= 7 + most for _ in range(50)), "beside Retry-After"


def test_a_whole_request_has_a_limit(store):
    started = time.monotonic()
    ((completion,), server, _) = talk(silent, store, limits=Limits(request_s=1))
    assert (completion.finish_reason, completion.text) == (FinishReason.TIMEOUT, "") and len(server.seen) == 1
    completions, server, _ = talk(silent, store, [request(seed=1), request(seed=2)], Limits(request_s=1, concurrency=1))
    assert [c.finish_reason for c in completions] == [FinishReason.TIMEOUT] * 2, "the wait for a slot counts"
    assert server.most_at_once == 1 and time.monotonic() - started < 30


def test_no_time_is_left_to_try_again(store):
    limits = Limits(request_s=1, backoff_s=60, backoff_most_s=60)
    ((completion,), server, _) = talk(refuse_500, store, limits=limits)
    assert completion.finish_reason is FinishReason.ERROR and len(server.seen) == 1
    assert completion.text == "500 Status: no, and no time is left to try again"


@pytest.mark.parametrize(
    "wrong",
    [
        *({"retries": -1}, {"concurrency": 0}, {"request_s": 0}, {"first_byte_s": -1.0}, {"idle_s": float("nan")}),
        *({"connect_s": 0}, {"backoff_s": -1}, {"backoff_most_s": -1}, {"retry_after_s": -1}),
    ],
    ids=str,
)
def test_limits_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=f"^Limits.{next(iter(wrong))} must be .*; got [^\\n]*$"):
        Limits(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"calls": "txt"}, {"frames": "film"}, {"image_format": "gif"}, {"tool_frames": "system"}], ids=str
)
def test_dialects_that_nobody_speaks(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"^Dialect.{name} must be one of .*; got '{value}'$"):
        Dialect(**wrong)


def test_a_frame_without_pixels_fails_alone(store):
    class Empty:
        def pixels(self, frame):
            raise ModelError("frame 0a is not here")

    words = request((Message(role="user", content=("Hi",)),))
    completions, _, _ = talk(lambda x: say(x, "fine"), Empty(), [request(), words])
    assert completions[0].text == "frame 0a is not here" and completions[1].text == "fine"


# Time, slots, cancelling.


def test_a_time_limit_gives_what_came_until_then(store):
    async def script(x):
        await (stalling(x) if x.body["seed"] == 1 else say(x, "fine"))

    completions, server, _ = talk(script, store, [request(seed=1, timeout_s=1), request(seed=2)])
    assert (completions[0].finish_reason, completions[0].text) == (FinishReason.TIMEOUT, "<answer>gre")
    assert completions[1].text == "fine" and server.dropped == 1


def test_so_many_at_once_and_no_more(store):
    async def script(x):
        await asyncio.sleep(0.05)
        await say(x, str(x.body["seed"]))

    completions, server, _ = talk(script, store, [request(seed=i) for i in range(10)])
    assert [c.text for c in completions] == [str(i) for i in range(10)]
    assert server.most_at_once == LIMITS.concurrency


def test_so_many_at_once_over_all_loops(store):
    """As when several threads ask one policy: each has a loop of its own."""

    async def script(x):
        await asyncio.sleep(0.05)
        await say(x, str(x.body["seed"]))

    async def run():
        async with serving(script) as server:
            policy = OpenAIPolicy(server.url, "m", store, limits=Limits(concurrency=2))
            said: list[str] = []

            def ask(thread: int) -> None:
                requests = [request(seed=10 * thread + i) for i in range(4)]
                said.extend(c.text for c in asyncio.run(policy.generate(requests)))

            await asyncio.gather(*(asyncio.to_thread(ask, i) for i in range(3)))
            return said, server.most_at_once

    said, most = asyncio.run(run())
    assert sorted(said) == sorted(str(10 * t + i) for t in range(3) for i in range(4)) and most == 2


def test_slots_outlive_those_who_wait_for_them():
    slots, held, done = Slots(1), threading.Event(), threading.Event()

    async def hold():
        async with slots:
            held.set()
            await asyncio.to_thread(done.wait)

    async def give_up():
        async with slots:
            raise AssertionError("the slot is taken")

    async def wait_and_go():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(give_up(), 0.05)

    holder = threading.Thread(target=lambda: asyncio.run(hold()))
    holder.start()
    held.wait()
    asyncio.run(wait_and_go())  # its loop is closed when the slot is handed on
    done.set()
    holder.join()

    async def cancelled_in_turn():
        await slots.__aenter__()
        waiting = asyncio.create_task(give_up())
        await asyncio.sleep(0)
        await slots.__aexit__()
        await asyncio.sleep(0)  # it has been given the slot and has not woken up
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(5), slots:
            return "free"

    assert asyncio.run(cancelled_in_turn()) == "free"


def test_n_is_never_asked_for_and_other_choices_do_not_count(store):
    async def script(x):
        other = {"index": 1, "message": {"content": "other"}, "finish_reason": "stop"}
        mine = {"index": 0, "message": {"content": f"{x.body['seed']}"}, "finish_reason": "stop"}
        await x.head()
        await x.send(json.dumps({"choices": [other, mine]}).encode())

    completions, server, _ = talk(script, store, [request(seed=i) for i in range(4)])
    assert [c.text for c in completions] == ["0", "1", "2", "3"]
    assert len(server.seen) == 4 and all("n" not in x.body for x in server.seen)


def test_cancelling_closes_the_connection(store):
    async def run():
        async with serving(silent) as server:
            policy = OpenAIPolicy(server.url, "m", store, limits=Limits())
            task = asyncio.create_task(policy.generate([request()]))
            while not server.seen:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for _ in range(100):
                if server.dropped:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("the server was not told")

    asyncio.run(run())


def test_one_policy_on_several_loops(store):
    async def run(policy):
        async with serving(lambda x: say(x, "fine")) as server:
            policy.server.address = server.url
            return (await policy.generate([request()]))[0].text

    policy = OpenAIPolicy("http://127.0.0.1:1/v1", "m", store, limits=LIMITS)
    assert [asyncio.run(run(policy)) for _ in range(3)] == ["fine"] * 3
    assert len(policy.server._connected) == 1, "closed loops are forgotten"


# Keys and addresses.


def test_the_key_goes_to_the_server_and_nowhere_else(store, film, encoder, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PLAYHEAD_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)

    async def echo(x):
        if x.number == 0:
            await x.refuse(500, {"error": f"internal: {x.headers}"})
        else:
            await say(x, f"<answer>{x.headers['authorization']}</answer>", completion_tokens=9)

    async def run():
        async with serving(echo) as server:
            policy = OpenAIPolicy(server.url, "m", store_of(tmp_path), limits=LIMITS)
            agent = VideoAgent(policy, encoder=encoder, home=tmp_path)
            trajectory = await agent.arun(Task(id="t", question="Which?", video=str(film)))
            return trajectory, server, policy

    trajectory, server, policy = asyncio.run(run())
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert trajectory.answer is not None and trajectory.answer.text == "Bearer [key]"
    assert KEY not in to_json(trajectory) and KEY not in caplog.text and KEY not in repr(vars(policy))
    assert KEY not in policy.renderer.decode([t for turn in trajectory.turns for t in turn.completion.token_ids])

    ((refused,), _, _) = talk(lambda x: x.refuse(401, {"error": {"message": f"bad key {KEY}"}}), store)
    assert refused.text == "401 Status: bad key [key]"


def test_openais_key_stays_on_safe_ground(store, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    keys = {
        url: OpenAIPolicy(url, "m", store).server._key
        for url in ("http://10.0.0.7:8000/v1", "https://api.example.com/v1", "http://localhost:8000/v1")
    }
    assert list(keys.values()) == ["", KEY, KEY]
    monkeypatch.setenv("PLAYHEAD_API_KEY", "another-key")
    assert OpenAIPolicy("http://10.0.0.7:8000/v1", "m", store).server._key == "another-key"
    monkeypatch.setenv("PLAYHEAD_API_KEY", "two\nlines")
    with pytest.raises(ModelError, match="PLAYHEAD_API_KEY") as caught:
        OpenAIPolicy("http://localhost/v1", "m", store)
    assert "two" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:8000/v1", "http://h:port/v1#m", "https:///v1#m", "http://[bad/v1#m", "http://h/v1?key=hush#m"),
        *("http://u:hush@h/v1#m", "http://u:hush@h:port/v1#m", "http://u:hush@[bad/v1#m", "http://hush@h/v1", "ftp://hush@h#m"),
        *("http://u:hush#1@h:1/v1#m", "http://u:1#hush@h/v1", "http://u:hush/1@h:1/v1#m", "http://u:hush?1@h/v1#m"),
    ],
)
def test_addresses_that_are_none(store, url):
    with pytest.raises(ModelError) as caught:
        OpenAIPolicy.from_url(url, store)
    assert "hush" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_name_may_hold_an_at(store):
    policy = OpenAIPolicy.from_url("https://api.example.com/v1#@cf/meta/llama@2", store)
    assert policy.model == "@cf/meta/llama@2" and policy.server.address == "https://api.example.com/v1"

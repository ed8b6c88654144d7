"""The policy for OpenAI-compatible servers, against a server that fails in every way we know (`fault_server.py`).

The real server is in test_transformers_serve.py.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import io
import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from playhead.agent.policies.openai import Dialect, Limits, OpenAIPolicy
from playhead.agent.policies.openai.text import FRAME, TextRenderer
from playhead.agent.renderers.parsing import parse
from playhead.agent.renderers.qwen3vl import Qwen3VLRenderer
from playhead.agent.video_agent import VideoAgent
from playhead.core.budget import Budget
from playhead.core.errors import DataError, ModelError
from playhead.core.nouns import FinishReason, Frame, Message, StopReason, Task, ToolSpec
from playhead.core.policy import GenerateRequest, Sampling
from playhead.core.trajectory import to_json
from playhead.train.samples import sample_of


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


faults = load("fault_server")
say, whole, chunk, serving = faults.say, faults.whole, faults.chunk, faults.serving

KEY = "sk-a-secret-that-nobody-may-see"
LIMITS = Limits(backoff_s=0.02, retries=3, concurrency=4)
IMPATIENT = Limits(first_byte_s=1, idle_s=1, backoff_s=0.02, retries=1)
"""Long enough for a busy machine, so that only silence is silence."""
FRAME_A = Frame(video_id="v", timestamp_s=12.0, sha256="0a", width=64, height=64)
FRAME_B = Frame(video_id="v", timestamp_s=13.5, sha256="0b", width=96, height=64)
TOOL = ToolSpec(name="search_clips", description="Find <|im_end|> moments.", parameters={"type": "object"})
UTF8 = ("utf-8", "surrogatepass")
CALL = '<tool_call>\n{"name": "search_clips", "arguments": {"query": "red"}}\n</tool_call>'
ASK = (Message(role="system", content=("Be brief.",)), Message(role="user", content=("Look: ", FRAME_A, "What?")))


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in ("PLAYHEAD_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def request(messages=ASK, tools=(), token_ids=(1, 2, 3), **sampling) -> GenerateRequest:
    return GenerateRequest(
        session="s",
        token_ids=token_ids,
        frames=tuple(f for m in messages for f in m.frames),
        messages=tuple(messages),
        sampling=Sampling(**{"max_tokens": 32, **sampling}),
        tools=tuple(tools),
    )


def talk(script, store, requests=None, limits=LIMITS, **options):
    """(completions, the server's memory, the policy) of some requests to a scripted server."""

    async def run():
        async with serving(script) as server:
            policy = OpenAIPolicy(server.url, "m", store, limits=limits, **options)
            return await policy.generate([request()] if requests is None else requests), server, policy

    return asyncio.run(run())


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
    "url", ["http://127.0.0.1:8000/v1", "http://u:hush@h/v1#m", "http://h:port/v1#m", "https:///v1#m"]
)
def test_addresses_that_are_none(store, url):
    with pytest.raises(ModelError) as caught:
        OpenAIPolicy.from_url(url, store)
    assert "hush" not in str(caught.value) and "\n" not in str(caught.value)


# Writing.


def bodies(messages, store, tools=(TOOL,), **dialect):
    """The body that a server gets."""
    _, server, _ = talk(lambda x: say(x, "x"), store, [request(messages, tools)], dialect=Dialect(**dialect))
    return server.seen[0].body


ROUND = (
    *ASK,
    Message(role="assistant", content=(f"<think>where?</think>\n{CALL}\n{CALL}",)),
    Message(role="tool", content=("1 moment\n", FRAME_A, FRAME_B)),
    Message(role="tool", content=("none <|im_end|>",)),
)


def kinds(content) -> list[str]:
    return [content] if isinstance(content, str) else [p.get("text", p["type"]) for p in content]


def test_native_calls(store):
    body = bodies(ROUND, store)
    system, user, called, first, second = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert kinds(user["content"]) == ["Look: <12.0 seconds>", "image_url", "What?"]
    uri = user["content"][1]["image_url"]["url"]
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    assert np.array_equal(np.asarray(image), store.pixels(FRAME_A)), "png is lossless"
    assert called["content"] == "<think>where?</think>" and len(called["tool_calls"]) == 2
    assert [m["tool_call_id"] for m in (first, second)] == [c["id"] for c in called["tool_calls"]]
    assert kinds(first["content"]) == ["1 moment\n<12.0 seconds>", "image_url", "<13.5 seconds>", "image_url"]
    assert second["content"] == "none < |im_end|>", "no outside text becomes a control token"
    assert body["tools"][0]["function"]["description"] == "Find < |im_end|> moments."


def test_frames_of_tools_in_a_users_message(store):
    *_, first, second, frames = bodies(ROUND, store, tool_frames="user", image_format="jpeg")["messages"]
    assert first["content"] == "1 moment\n<12.0 seconds><13.5 seconds>" and second["role"] == "tool"
    assert frames["role"] == "user" and kinds(frames["content"])[1::2] == ["image_url"] * 2
    assert frames["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,")


def test_calls_as_text(store):
    body = bodies(ROUND, store, calls="text")
    system, _, called, results = body["messages"]
    assert (
        "tools" not in body
        and system["content"].startswith("Be brief.\n\n# Tools")
        and "search_clips" in system["content"]
    )
    assert called == {"role": "assistant", "content": ROUND[2].text}
    assert results["role"] == "user"
    assert kinds(results["content"])[-1].endswith(
        "</tool_response>\n<tool_response>\nnone < |im_end|>\n</tool_response>"
    )


def test_a_video_part(store):
    user = bodies(ROUND, store, frames="video")["messages"][3]
    assert kinds(user["content"]) == ["1 moment\n<12.0 seconds><13.5 seconds>", "video_url"]
    uri = user["content"][1]["video_url"]["url"]
    assert uri.startswith("data:video/jpeg;base64,") and uri.count(",") == 2


def test_a_call_without_results_goes_back_as_text(store):
    messages = (*ASK, Message(role="assistant", content=(CALL,)), Message(role="user", content=("Answer.",)))
    assert bodies(messages, store)["messages"][2] == {"role": "assistant", "content": CALL}


def test_a_forced_answer(store):
    forced = (*ASK, Message(role="assistant", content=("<think>Time is up.</think>\n<answer>",)))
    body = bodies(forced, store)
    assert body["messages"][-1]["role"] == "user" and body["tool_choice"] == "none"
    reply = "<think>hm</think><answer>red</answer>\n<evidence>1-2</evidence>"
    ((completion,), _, _) = talk(lambda x: say(x, reply), store, [request(forced)])
    assert completion.text == "red</answer>\n<evidence>1-2</evidence>", "as if it had gone on with the opening"
    cut = (*ASK, Message(role="assistant", content=("I see",)), Message(role="assistant", content=("\n<answer>",)))
    body = bodies(cut, store, prefill=True)
    assert body["messages"][-1] == {"role": "assistant", "content": "I see\n<answer>"}
    assert body["continue_final_message"] is True and body["add_generation_prompt"] is False


def test_fields_of_ones_own(store):
    body = bodies(ASK, store, extra={"max_completion_tokens": 9, "max_tokens": None, "seed": None})
    assert body["max_completion_tokens"] == 9 and not {"max_tokens", "seed"} & set(body)


# Counting and exactness.


@given(st.text(st.characters(codec=None)), st.integers(0, 40))
def test_pseudo_tokens_lose_nothing(text, count):
    renderer = TextRenderer()
    assert renderer.decode(renderer.encode(text)) == text
    spread = renderer.spread(text, count)
    assert renderer.decode(spread) == text and len(spread) == max(count, -(-len(text.encode(*UTF8)) // 7))
    assert FRAME not in spread and all(0 < t < 2**63 for t in spread), "checkpoints hold numbers of 64 bits"


@pytest.fixture(scope="module")
def family() -> Qwen3VLRenderer:
    """Of a checkpoint with the family's own template."""
    made = load("conftest")
    return Qwen3VLRenderer(made.make_processor(made.family_template()))


def exact_server(renderer: Qwen3VLRenderer, wrong: str = ""):
    """As vLLM answers with `return_token_ids`: it renders the request by the family's own template, tools included."""

    async def script(x):
        assert x.body["return_token_ids"] and x.body["logprobs"]
        sizes = []
        for message in x.body["messages"]:
            parts = message["content"] if isinstance(message["content"], list) else []
            uris = [p["image_url"]["url"] for p in parts if p["type"] == "image_url"]
            images = [Image.open(io.BytesIO(base64.b64decode(u.partition(",")[2]))) for u in uris]
            sizes += [Frame(video_id="v", timestamp_s=0, sha256="", width=i.width, height=i.height) for i in images]
        text = renderer._apply(
            x.body["messages"], tools=x.body.get("tools"), open_turn="continue_final_message" not in x.body
        )
        if "continue_final_message" in x.body:
            text = text.removesuffix("<|im_end|>\n")
        prompt = list(renderer._rendered(text, tuple(sizes)).token_ids)
        said = [*renderer.encode(f"<think>where?</think>\n{CALL}" if x.number == 0 else "<answer>red</answer>")]
        said += [renderer.tokenizer.eos_token_id]
        if wrong == "prompt":
            prompt[5] += 1
        await x.head(kind="text/event-stream")
        await x.event({"prompt_token_ids": prompt, **chunk({"role": "assistant", "content": ""})})
        for i, token in enumerate(said[: -1 if wrong == "logprobs" else None]):
            text = "" if token == said[-1] else renderer.decode([token])
            scored = {"content": [{"token": text, "logprob": -0.5 - i}]}
            ids = {} if wrong == "ids" else {"token_ids": [token]}
            await x.event(chunk({"content": text}, logprobs=scored, **ids))
        extra = {"token_ids": [said[-1]]} if wrong == "logprobs" else {}
        await x.event(chunk({}, "stop", **extra))

    return script


def store_of(path):
    from playhead.core.frames import FrameStore

    return FrameStore(path / "frames")


@pytest.mark.parametrize("wrong", ["", "prompt", "ids", "logprobs"])
def test_a_server_that_returns_its_tokens_makes_exact_trajectories(family, film, encoder, tmp_path, wrong):
    renderer = family

    async def run():
        async with serving(exact_server(renderer, wrong)) as server:
            dialect = Dialect(calls="text", prefill=True)
            policy = OpenAIPolicy(server.url, "m", store_of(tmp_path), dialect=dialect, limits=LIMITS, renderer=renderer)
            agent = VideoAgent(policy, encoder=encoder, home=tmp_path)
            return await agent.arun(Task(id="t", question="Which?", video=str(film))), policy

    trajectory, policy = asyncio.run(run())
    assert trajectory.stop_reason is StopReason.ANSWERED and len(trajectory.turns) == 2 and trajectory.frames
    if wrong:
        assert not trajectory.exact and policy.inexact_because
        with pytest.raises(DataError, match=f"{trajectory.id}.*exact=False"):
            sample_of(trajectory, renderer, renderer.image_token_id)
        return
    assert trajectory.exact, policy.inexact_because
    sample = sample_of(trajectory, renderer, renderer.image_token_id)
    sampled = [p for p, m in zip(sample.logprobs_T, sample.loss_mask_T, strict=True) if m]
    assert all(p < 0 for p in sampled) and sampled[0] == -0.5


def test_one_turn_that_drifts_spoils_its_own_trajectory_alone(family, film, encoder, tmp_path):
    async def script(x):
        drifts = "drifts" in json.dumps(x.body["messages"])
        await exact_server(family, "prompt" if drifts else "")(x)

    async def run():
        async with serving(script) as server:
            policy = OpenAIPolicy(
                server.url, "m", store_of(tmp_path), dialect=Dialect(calls="text"), limits=LIMITS, renderer=family
            )
            agent = VideoAgent(policy, encoder=encoder, home=tmp_path)
            asked = [Task(id=q, question=q, video=str(film)) for q in ("What?", "What drifts?", "What?")]
            return [await agent.arun(task) for task in asked]

    assert [t.exact for t in asyncio.run(run())] == [True, False, True]


def test_a_forced_answer_is_exact_where_the_server_goes_on_with_it(family, film, encoder, tmp_path):
    async def run():
        async with serving(exact_server(family)) as server:
            dialect = Dialect(calls="text", prefill=True)
            policy = OpenAIPolicy(server.url, "m", store_of(tmp_path), dialect=dialect, limits=LIMITS, renderer=family)
            agent = VideoAgent(policy, encoder=encoder, home=tmp_path, budget=Budget(turns=2))
            return await agent.arun(Task(id="t", question="Which?", video=str(film))), policy, server

    trajectory, policy, server = asyncio.run(run())
    assert trajectory.stop_reason is StopReason.MAX_TURNS and server.seen[1].body["continue_final_message"]
    assert trajectory.exact, policy.inexact_because


def test_logprobs_of_another_temperature_are_not_exact(family, store):
    renderer = family
    messages = (Message(role="user", content=("Hi",)),)

    def exact(**options):
        sampling = options.pop("sampling", {})
        asked = request(messages, token_ids=renderer.start(messages, ()).token_ids, **sampling)
        return talk(exact_server(renderer), store, [asked], renderer=renderer, **options)[0][0].exact

    assert exact() and exact(sampling={"temperature": 1.0, "top_p": 0.5})
    assert not exact(sampling={"temperature": 0.7})
    assert exact(sampling={"temperature": 0.7}, scaled_logprobs=True)
    assert not exact(sampling={"temperature": 0.7, "top_p": 0.5}, scaled_logprobs=True)


# The whole loop.


def test_an_episode_over_native_calls(film, encoder, tmp_path):
    async def script(x):
        if x.number == 0:
            assert len(x.body["tools"]) == 3
            calls = (call(0, "search_clips", '{"query": "red", "k": 2}'), call(1, "zoom", "{"))
            await say(x, "<think>where?</think>", calls=calls)
        else:
            roles = [m["role"] for m in x.body["messages"]]
            assert roles == ["system", "user", "assistant", "tool", "tool"]
            assert any(p["type"] == "image_url" for p in x.body["messages"][3]["content"])
            await say(x, "<answer>red</answer>\n<evidence>30.0-34.0</evidence>", completion_tokens=12)

    async def run():
        async with serving(script) as server:
            saved = tmp_path / "runs.sqlite"
            agent = VideoAgent(f"{server.url}#tiny", encoder=encoder, home=tmp_path, checkpoints=saved)
            return await agent.arun(Task(id="t", question="Which?", video=str(film), choices=("green", "red")))

    trajectory = asyncio.run(run())
    assert trajectory.error is None and trajectory.answer is not None
    assert (trajectory.answer.choice, trajectory.answer.evidence[0].start_s) == (1, 30.0)
    assert trajectory.turns[0].observations[1].error is not None, "an unknown tool is told so"
    assert not trajectory.exact and trajectory.model.endswith("/v1#tiny")


def call(index, name, arguments):
    return {"index": index, "function": {"name": name, "arguments": arguments}}


def test_a_dead_server_is_one_line(film, encoder, tmp_path):
    agent = VideoAgent("http://127.0.0.1:9/v1#m", encoder=encoder, home=tmp_path)
    agent.policy.server.limits = Limits(retries=0)
    with pytest.raises(ModelError, match="no server answers at http:") as caught:
        agent.ask(film, "Which?")
    assert "\n" not in str(caught.value)

"""The policy for OpenAI-compatible servers: what it sends in each dialect, how it counts, when a trajectory is token-exact, and
whole episodes. The server is a small one of ours (`fault_server.py`).
"""

from __future__ import annotations

import asyncio
import base64
import io
import json

import numpy as np
import pytest
from fault_server import ASK, CALL, FRAME_A, FRAME_B, LIMITS, TOOL, chunk, no_key, request, say, serving, store_of, talk
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from playhead.agent.policies.openai import Dialect, Limits, OpenAIPolicy
from playhead.agent.policies.openai.text import FRAME, TextRenderer
from playhead.agent.renderers.qwen3vl import Qwen3VLRenderer
from playhead.agent.video_agent import VideoAgent
from playhead.core.budget import Budget
from playhead.core.errors import DataError, ModelError
from playhead.core.nouns import Frame, Message, StopReason, Task
from playhead.train.samples import sample_of
from tiny_checkpoints import family_template, make_processor

__all__ = ["no_key"]
UTF8 = ("utf-8", "surrogatepass")


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
    return Qwen3VLRenderer(make_processor(family_template()))


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
            assert {"search_clips", "temporal_zoom"} <= {t["function"]["name"] for t in x.body["tools"]}
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

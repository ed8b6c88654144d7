"""The policy for servers against a real one: `transformers serve` in a process of its own.

It serves a tiny Qwen3-VL of real classes whose weights are set by hand so that it says one thing, whatever it is shown:
attention and MLPs add nothing, so the next token follows from the last one alone, along the chain in `SAYS`. The server parses
the tool call out of that: a run goes through its chat template, image loading, vision tower, streaming and parser.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

import pytest
from playhead.agent.policies.openai import Dialect, OpenAIPolicy
from playhead.agent.renderers.parsing import parse
from playhead.cli import run
from playhead.core.nouns import FinishReason, Frame, Message, ToolSpec
from playhead.core.policy import GenerateRequest, Sampling
from tiny_checkpoints import family_template, make_model, make_processor

NEEDED = ("fastapi", "uvicorn", "openai", "pydantic", "starlette", "rich", "accelerate")
LACKING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(LACKING), reason=f"transformers[serving] is not installed: no {', '.join(LACKING)}"),
]
START_S = 240
CALL = '{"name": "temporal_zoom", "arguments": {"start_s": 29, "end_s": 33}}'
ANSWER = "<answer>red</answer><evidence>30.0-34.0</evidence>"
SAYS = ["\n", "<think>", "where?", "</think>", "<tool_call>", CALL, "</tool_call>", ANSWER, "<|im_end|>"]
TOOL = ToolSpec(
    name="temporal_zoom",
    description="Look closer.",
    parameters={"type": "object", "properties": {"start_s": {"type": "number"}, "end_s": {"type": "number"}}},
)


def say_one_thing(model, tokenizer) -> None:
    """Set weights so that each token of `SAYS` is followed by the next."""
    import torch

    chain = [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(piece)) for piece in SAYS]
    assert all(len(ids) == 1 for ids in chain), "every piece is one token"
    model.resize_token_embeddings(len(tokenizer))
    layers = model.model.language_model
    with torch.no_grad():
        for layer in layers.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        layers.norm.weight.fill_(1.0)
        embeddings = model.get_input_embeddings().weight
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(embeddings))
        embeddings[:, : len(SAYS)] = 0
        for i, (now, after) in enumerate(pairwise(chain)):
            embeddings[now[0]] = torch.nn.functional.one_hot(torch.tensor(i), embeddings.shape[1])
            model.lm_head.weight[after[0], i] = 1.0
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(the server's address, the model's name there)."""
    folder = tmp_path_factory.mktemp("served")
    processor = make_processor(family_template())
    model = make_model(processor)
    processor.tokenizer.add_tokens(["where?", CALL, ANSWER])
    say_one_thing(model, processor.tokenizer)
    processor.save_pretrained(folder / "tiny")
    model.save_pretrained(folder / "tiny")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder / "tiny")]
    command += ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=folder)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, folder / "log")
        yield f"http://127.0.0.1:{port}/v1", str(folder / "tiny")
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            opener.open(url, timeout=2)
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"not up after {START_S} s: {log.read_text(errors='replace')[-2000:]}")


def ask(served, store, messages, tools=(TOOL,), tokens=32, count=1, **options):
    address, name = served
    policy = OpenAIPolicy(address, name, store, **options)
    frames = tuple(f for m in messages for f in m.frames)
    request = GenerateRequest(
        session="s",
        token_ids=(1,),
        frames=frames,
        messages=tuple(messages),
        sampling=Sampling(max_tokens=tokens),
        tools=tuple(tools),
    )
    return asyncio.run(policy.generate([request] * count))


FRAMES = tuple(Frame(video_id="v", timestamp_s=float(t), sha256=f"0{t}", width=96, height=64) for t in (2, 3))
QUESTION = Message(role="user", content=("Video.\n", *FRAMES, "Which?"))


@pytest.mark.parametrize("stream", [True, False])
def test_frames_and_tools_go_there_and_calls_come_back(served, store, stream):
    (completion,) = ask(served, store, [QUESTION], dialect=Dialect(stream=stream))
    assert completion.finish_reason is FinishReason.STOP, completion.text
    parsed = parse(completion.text, 0)
    (call,) = parsed.tool_calls
    assert parsed.thought == "where?" and parsed.answer == "red"
    assert json.loads(call.arguments_json) == {"start_s": 29, "end_s": 33}
    assert completion.prefill_tokens > 2 * 6, "the prompt's tokens, as the server counts them"
    assert len(completion.token_ids) >= len(SAYS) - 1, "more, where a token of the server holds over seven bytes"


@pytest.mark.parametrize("calls", ["native", "text"])
def test_results_with_frames_go_back(served, store, calls):
    said = f"<think>where?</think>\n<tool_call>\n{CALL}\n</tool_call>"
    results = Message(role="tool", content=("2 frames\n", *FRAMES))
    turns = [QUESTION, Message(role="assistant", content=(said,)), results]
    (completion,) = ask(served, store, turns, dialect=Dialect(calls=calls))
    assert parse(completion.text, 1).answer == "red", completion.text


def test_samples_are_requests_and_length_is_told(served, store):
    completions = ask(served, store, [QUESTION], tokens=3, count=3)
    assert [c.finish_reason for c in completions] == [FinishReason.LENGTH] * 3


def test_playhead_ask(served, film, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    address, name = served
    command = ["ask", str(film), "Which colour?", "--choices", "green,red", "--model", f"{address}#{name}", "--json"]
    assert run([*command, "--budget", "turns=3,seconds=200"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["answer"], told["choice"], told["evidence"]) == ("red", 1, [[30.0, 34.0]])
    assert told["usage"]["tool_calls"] >= 1 and told["looked_at"] == [[29.0, 33.0]] and told["error"] is None
    assert told["model"] == f"{address}#{name}"

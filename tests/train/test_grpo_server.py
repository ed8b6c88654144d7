"""Rollouts on a server of vLLM's protocol: a small HTTP server in its place, with the real engine behind it.

The fake takes what TRL 1.16's client would send (render, generate by token ids and features, weight updates), so what
is tested is our side of the protocol: tokens in and out, log-probs, new weights, faults. And processes that send their
weights together, by torchrun and gloo.
"""

import base64
import io
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpo_toy as toy
import numpy as np
import pytest
import server_ranks

torch = pytest.importorskip("torch")
pytest.importorskip("trl")


class Fake:
    """The server's state, and its answers."""

    def __init__(self, policy, store):
        self.policy, self.store = policy, store
        self.mode, self.calls, self.updating, self.breaks, self.pending = "processed_logprobs", [], False, 0, []
        self.rendered = {}
        self.together = None
        """A barrier that requests wait at until all are there."""

    def answer(self, path, body):
        self.calls.append(path)
        if path == "/v1/models":
            return {"data": [{"id": "served"}]}
        if path.startswith("/server_info"):
            return {"vllm_config": {"model_config": {"logprobs_mode": self.mode}}}
        if path == "/v1/chat/completions/render":
            images = [part["image_url"]["url"] for part in body["messages"][0]["content"]]
            key = f"features-{len(self.rendered)}"
            self.rendered[key] = images
            return {"features": {"hashes": key}}
        if path == "/inference/v1/generate":
            if self.breaks:
                self.breaks -= 1
                raise RuntimeError("out of memory")
            if self.together is not None:
                self.together.wait(60)
            return self.generate(body)
        if path == "/start_weight_update":
            self.updating = True
        if path == "/finish_weight_update":
            self.updating = False
        return {}

    def generate(self, body):
        from PIL import Image
        from playhead.core.aio import run_until_done
        from playhead.core.nouns import Frame
        from playhead.core.policy import GenerateRequest, Sampling

        frames = []
        for number, url in enumerate(self.rendered[body["features"]["hashes"]]):
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))
            sha = f"{abs(hash(pixels.tobytes())):x}"
            self.store.given[sha] = pixels
            height, width, _ = pixels.shape
            frames.append(Frame(video_id="v", timestamp_s=float(number), sha256=sha, width=width, height=height))
        p = body["sampling_params"]
        sampling = Sampling(temperature=p["temperature"], max_tokens=p["max_tokens"], seed=p["seed"])
        request = GenerateRequest(
            session="s", token_ids=tuple(body["token_ids"]), frames=tuple(frames), messages=(), sampling=sampling
        )
        (said,) = run_until_done(self.policy.generate([request]))
        assert said.token_ids, said.text
        content = [{"token": f"token_id:{t}", "logprob": p} for t, p in zip(said.token_ids, said.logprobs, strict=True)]
        return {
            "choices": [{"token_ids": list(said.token_ids), "logprobs": {"content": content}, "finish_reason": "stop"}]
        }


class GivenStore:
    def __init__(self):
        self.given = {}

    def pixels(self, frame):
        return self.given[frame.sha256]


@pytest.fixture
def fake(checkpoint):
    store = GivenStore()
    state = Fake(toy.make_policy(checkpoint, store), store)

    class Handler(BaseHTTPRequestHandler):
        def _reply(self, code, data):
            text = json.dumps(data).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self):
            self._reply(200, state.answer(self.path, {}))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self._reply(200, state.answer(self.path, body))
            except RuntimeError as error:
                self._reply(500, {"error": str(error)})

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


def make(fake, checkpoint, out, **how):
    """A trainer whose rollouts go to the fake; weights travel by a function in NCCL's place."""
    from playhead.agent.families import renderer_class
    from playhead.train.grpo.server import ServerWeights, VLLMPolicy, VLLMServer
    from playhead.train.grpo.trainer import AgentGRPOTrainer

    store = toy.NoiseStore()
    renderer = renderer_class("qwen3_vl").from_checkpoint(checkpoint)
    policy = VLLMPolicy(VLLMServer(fake.address), renderer, store)
    model = toy.make_policy(checkpoint, store).model

    def send(server, about, named):
        assert fake.updating
        server.post("/update_weights", {"update_info": {"names": [name for name, _, _ in about]}})
        theirs = dict(fake.policy.model.named_parameters())
        with torch.no_grad():
            for (name, weights), (said, dtype, shape) in zip(named, about, strict=True):
                assert name == said and list(weights.shape) == shape and dtype == "float32"
                theirs[name].copy_(weights)
        fake.policy.weights_changed()

    sync = ServerWeights(policy, lambda: model, send=send)
    agent = toy.ToyAgent(policy=policy, store=store, turns=2)
    plan = toy.make_plan(out, save_strategy="no", **how)
    return AgentGRPOTrainer(agent, toy.make_tasks(), plan, model=model, sync=sync)


def test_a_run_with_rollouts_on_a_server(fake, checkpoint, tmp_path):
    trainer = make(fake, checkpoint, tmp_path, steps=2)
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert all(0 < line["logprob_gap/max"] <= 1e-4 for line in lines), (
        "the server has the trainer's weights in every step"
    )
    order = [c for c in fake.calls if "weight" in c or "prefix" in c]
    assert order == ["/start_weight_update", "/update_weights", "/finish_weight_update", "/reset_prefix_cache"] * 2
    assert trainer.agent.policy.version == 2
    renders = fake.calls.count("/v1/chat/completions/render")
    assert renders < fake.calls.count("/inference/v1/generate"), "frames of a group are sent once"


def test_a_server_that_fails_now_and_then(fake, checkpoint, tmp_path):
    fake.breaks = 3
    trainer = make(fake, checkpoint, tmp_path, steps=1)
    trainer.train()
    (line,) = [json.loads(one) for one in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert line["rollouts/failed"] >= 1 and line["rollouts/sound"] >= 1
    assert "HTTP 500" in (tmp_path / "failures.jsonl").read_text()


def test_a_group_asks_at_once_and_sends_its_frames_once(fake, checkpoint):
    """As many requests are under way as were allowed, however few cores are here: they only wait for the server."""
    from playhead.agent.families import renderer_class
    from playhead.agent.prompts import first_messages
    from playhead.core.aio import AT_ONCE, run_until_done
    from playhead.core.nouns import FinishReason
    from playhead.core.policy import GenerateRequest, Sampling
    from playhead.train.grpo.server import VLLMPolicy, VLLMServer

    renderer = renderer_class("qwen3_vl").from_checkpoint(checkpoint)
    most = AT_ONCE + 6
    policy = VLLMPolicy(VLLMServer(fake.address), renderer, toy.NoiseStore(), at_once=most)
    new = renderer.start(first_messages(100.0, (toy.frame(1.0), toy.frame(2.0)), "What?"), ())
    asked = [
        GenerateRequest(
            session=f"s{i}",
            token_ids=new.token_ids,
            frames=new.frames,
            messages=(),
            sampling=Sampling(temperature=1.0, max_tokens=2, seed=i),
        )
        for i in range(most)
    ]
    fake.together = threading.Barrier(most)
    said = run_until_done(policy.generate(asked))
    assert {c.finish_reason for c in said} <= {FinishReason.STOP, FinishReason.LENGTH}, said[0].text
    assert fake.calls.count("/v1/chat/completions/render") == 1


def test_servers_that_will_not_do(fake, checkpoint):
    from playhead.agent.families import renderer_class
    from playhead.core.errors import ModelError
    from playhead.train.grpo.server import VLLMPolicy, VLLMServer, read_logprobs

    fake.mode = "raw_logprobs"
    renderer = renderer_class("qwen3_vl").from_checkpoint(checkpoint)
    with pytest.raises(ModelError, match="processed_logprobs"):
        VLLMPolicy(VLLMServer(fake.address), renderer, toy.NoiseStore())
    with pytest.raises(ModelError, match="is the server running"):
        VLLMServer("http://127.0.0.1:9", limit_s=1.0)
    with pytest.raises(ModelError, match="not of the 2 tokens"):
        read_logprobs({"content": [{"token": "token_id:1", "logprob": -0.5}]}, (1, 2), "x")
    assert read_logprobs({"tokens": ["token_id:4"], "token_logprobs": [-1.0]}, (4,), "x") == (-1.0,)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes found on the server when its `publish` came back."""
    out = tmp_path_factory.mktemp("ranks")
    head = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*head, server_ranks.__file__, str(out)], env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"rank{r}.json").read_text()) for r in range(2)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", ["plain", "sharded", "zero"])
def test_no_process_goes_on_before_the_server_has_the_weights(ranks, case):
    whole = {name: float(p.detach().sum()) for name, p in server_ranks.model().named_parameters()}
    for seen in ranks:
        assert seen[case]["found"] == pytest.approx(whole), "all of every tensor, before publish came back"
        assert seen[case]["failed"] == "" and seen[case]["version"] == 1
    first, other = (seen[case]["said"] for seen in ranks)
    assert first == ["/start_weight_update", "/finish_weight_update", "/reset_prefix_cache"] and other == []


@pytest.mark.timeout(900)
def test_every_process_hears_that_the_server_refused(ranks):
    first, other = (seen["refused"] for seen in ranks)
    assert first["failed"] == "the server is full" and "/finish_weight_update" in first["said"]
    assert "did not get the new weights: ModelError: the server is full" in other["failed"]
    assert first["version"] == other["version"] == 0 and first["found"] is None


def test_zero_3_gathers_its_own_parameters(monkeypatch):
    from types import ModuleType

    from playhead.train.grpo.server import gathered

    asked = []

    class Gathered:
        def __init__(self, parameters):
            asked.append(parameters)

    stand_in = ModuleType("deepspeed")
    stand_in.zero = ModuleType("deepspeed.zero")
    stand_in.zero.GatheredParameters = Gathered
    monkeypatch.setitem(sys.modules, "deepspeed", stand_in)
    plain, zero = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    zero.ds_id = 0
    with gathered([plain]):
        assert asked == []
    assert isinstance(gathered([zero]), Gathered) and asked == [[zero]]

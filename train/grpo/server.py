"""Rollouts on a vLLM server that is kept at the trainer's weights, over the protocol of TRL 1.16's server mode.

    VLLM_SERVER_DEV_MODE=1 vllm serve CHECKPOINT --weight-transfer-config '{"backend": "nccl"}' --logprobs-mode
    processed_logprobs

    policy = VLLMPolicy(VLLMServer("http://127.0.0.1:8000"), renderer, store)
    trainer = AgentGRPOTrainer(VideoAgent(policy), tasks, plan, model=model, sync=ServerWeights(policy, lambda: model))

Tokens in, tokens out: a request carries the agent's own token ids and its frames, which the server turned into
features before (`/v1/chat/completions/render`, once per list of frames), so nothing is rendered or tokenised a second
time; what comes back are token ids and the log-probs at the sampling temperature. The endpoints are those of
`trl.generation.vllm_client`; that client itself is synchronous, imports vLLM, and cannot be cancelled, so requests
are made here. The broadcast of the weights is TRL's (NCCL, a GPU). Where several processes train, the first sends, and
none plays an episode before the server has the new weights.

Not run against vLLM: the tests hold this to a small HTTP server that speaks the protocol, and the weights of two
processes to gloo. What the server's processor makes of a frame must be what the renderer expects (same checkpoint), or it
refuses the request; sampler and trainer are then compared in every step.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch.distributed as dist
from torch import Tensor, nn

from ...agent.renderers.chat import ChatRenderer, PixelSource
from ...core.aio import Threads
from ...core.errors import ModelError
from ...core.nouns import Completion, FinishReason, Frame
from ...core.policy import GenerateRequest
from .crew import Crew
from .weights import plain_names, whole_parameters

Send = Callable[["VLLMServer", list[tuple[str, str, list[int]]], Iterator[tuple[str, Tensor]]], None]
KEPT_FEATURES = 256
"""Lists of frames whose features are kept; the turns of an episode and the samples of a group share theirs."""


class VLLMServer:
    """The endpoints that rollouts and weight updates need.

    Args:
        address: without a path, such as http://127.0.0.1:8000.
        limit_s: seconds that any one request may take.
        patience_s: seconds to wait for the server to come up.

    Raises:
        ModelError: nobody answers there, or not as vLLM does.
    """

    def __init__(self, address: str, *, limit_s: float = 600.0, patience_s: float = 0.0) -> None:
        self.address, self.limit_s = address.rstrip("/"), limit_s
        self._wait(patience_s)
        models = self.get("/v1/models").get("data") or [{}]
        if "id" not in models[0]:
            raise ModelError(f"{self.address}: the server names no model; is it `vllm serve`?")
        self.model = str(models[0]["id"])

    def get(self, path: str) -> dict[str, Any]:
        return self._ask(urllib.request.Request(self.address + path))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(body).encode()
        return self._ask(urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}))

    def check_scaled_logprobs(self) -> None:
        """Raises: ModelError: the server's log-probs are not those of the sampling temperature."""
        found = self.get("/server_info?config_format=json")
        mode = found.get("vllm_config", {}).get("model_config", {}).get("logprobs_mode")
        if mode != "processed_logprobs":
            raise ModelError(
                f"{self.address}: its log-probs are {mode!r}; start it with --logprobs-mode processed_logprobs, or sampler and "
                "trainer do not speak of the same distribution"
            )

    def _wait(self, patience_s: float) -> None:
        end = time.monotonic() + patience_s
        while True:
            try:
                self._ask(urllib.request.Request(self.address + "/health"))
                return
            except ModelError:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.2)

    def _ask(self, request: urllib.request.Request) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(request, timeout=self.limit_s) as reply:
                text = reply.read()
        except urllib.error.HTTPError as error:
            said = " ".join(error.read().decode(errors="replace").split())[:200]
            hint = "; start it with VLLM_SERVER_DEV_MODE=1 and --enable-scale-out" if error.code == 404 else ""
            raise ModelError(f"{request.full_url}: HTTP {error.code} {said}{hint}") from None
        except (OSError, TimeoutError) as error:
            raise ModelError(f"{self.address}: no answer ({error}); is the server running?") from None
        try:
            found = json.loads(text) if text.strip() else {}
        except ValueError:
            raise ModelError(f"{request.full_url}: not JSON: {text[:80]!r}") from None
        return found if isinstance(found, dict) else {"": found}


class VLLMPolicy:
    """A `Policy` on the server. Exact: it sends tokens and gets tokens.

    Args:
        renderer: of the served checkpoint.
        store: where the frames' pixels are.
        at_once: requests under way at once.

    Raises:
        ModelError: the server's log-probs are not at the sampling temperature.
    """

    exact = True

    def __init__(self, server: VLLMServer, renderer: ChatRenderer, store: PixelSource, *, at_once: int = 64) -> None:
        server.check_scaled_logprobs()
        self.server, self.renderer, self.store = server, renderer, store
        self.name = f"{server.address}#{server.model}"
        self.version = 0
        self._threads = Threads(at_once)
        self._features: OrderedDict[tuple[str, ...], Future[Any]] = OrderedDict()
        self._lock = threading.Lock()

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """One completion per request, in order; a failure is a completion with `FinishReason.ERROR`."""
        return list(await asyncio.gather(*(self._one(r) for r in requests)))

    async def _one(self, request: GenerateRequest) -> Completion:
        began, version = time.monotonic(), self.version
        try:
            limit_s = request.sampling.timeout_s
            body = self._threads.run(self._ask, request)
            ids, logprobs, finish = await (body if limit_s is None else asyncio.wait_for(body, limit_s))
        except TimeoutError:
            ids, logprobs, finish = (), (), FinishReason.TIMEOUT
        except Exception as error:  # one bad request must not take the others with it
            line = " ".join(str(error).split())
            return Completion(
                token_ids=(),
                text=line,
                finish_reason=FinishReason.ERROR,
                policy_version=version,
                wall_s=time.monotonic() - began,
            )
        return Completion(
            token_ids=ids,
            text=self.renderer.completion_text(ids),
            logprobs=logprobs,
            finish_reason=finish,
            policy_version=version,
            prefill_tokens=len(request.token_ids),
            wall_s=time.monotonic() - began,
        )

    def _ask(self, request: GenerateRequest) -> tuple[tuple[int, ...], tuple[float, ...], FinishReason]:
        sampling = request.sampling
        parameters = {
            "n": 1,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
            "logprobs": 0,
            "stop_token_ids": list(self.renderer.stop_token_ids),
            # A sampled placeholder has no frame behind it.
            "logit_bias": {str(t): -100.0 for t in self.renderer.suppressed_token_ids},
            "output_kind": 2,  # all at the end
        }
        common = {"model": self.server.model, "return_token_ids": True, "return_tokens_as_token_ids": True}
        if request.frames:
            body = {
                "request_id": f"{request.session}-{len(request.token_ids)}",
                "model": self.server.model,
                "token_ids": list(request.token_ids),
                "features": self._features_of(request.frames),
                "sampling_params": parameters,
            }
            (choice,) = self.server.post("/inference/v1/generate", body)["choices"]
        else:
            parameters.pop("output_kind")
            body = {**common, "prompt": [list(request.token_ids)], **parameters}
            (choice,) = self.server.post("/v1/completions", body)["choices"]
        ids = tuple(int(t) for t in choice["token_ids"])
        logprobs = read_logprobs(choice.get("logprobs"), ids, self.name)
        finish = FinishReason.LENGTH if choice.get("finish_reason") == "length" else FinishReason.STOP
        return ids, logprobs, finish

    def _features_of(self, frames: Sequence[Frame]) -> Any:
        """The server's own features of a list of frames, asked for once, however many rollouts show them at the same time."""
        key = tuple(f"{f.sha256}:{f.width}x{f.height}" for f in frames)
        with self._lock:
            found, ours = self._features.get(key), key not in self._features
            if found is None:
                found = self._features[key] = Future()
            self._features.move_to_end(key)
            while len(self._features) > KEPT_FEATURES:
                self._features.popitem(last=False)
        if ours:
            try:
                found.set_result(self._rendered(frames))
            except BaseException as error:  # the others of the group hear of it, the next asks again
                with self._lock:
                    self._features.pop(key, None)
                found.set_exception(error)
        return found.result()

    def _rendered(self, frames: Sequence[Frame]) -> Any:
        content = [{"type": "image_url", "image_url": {"url": _data_url(self.store.pixels(f))}} for f in frames]
        body = {"model": self.server.model, "messages": [{"role": "user", "content": content}], "max_tokens": 1}
        return self.server.post("/v1/chat/completions/render", body)["features"]

    def weights_changed(self) -> None:
        """The server has new weights: what it cached of the old ones goes, and completions carry a new version. Features
        stay, since the processor makes them and no weights are in them."""
        self.server.post("/reset_prefix_cache", {})
        self.version += 1

    def forget(self, session: str) -> None:
        """The server keeps its caches itself."""


def gathered(parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
    """A context in which parameters that ZeRO-3 keeps in shards are whole; a DTensor needs none to be read whole."""
    if not any(hasattr(p, "ds_id") for p in parameters):
        return nullcontext()
    import deepspeed  # pyright: ignore[reportMissingImports]

    return deepspeed.zero.GatheredParameters(parameters)


class ServerWeights:
    """`WeightSync` by TRL's weight-transfer protocol: announce the tensors, broadcast them in that order, finish.

    Args:
        trained: gives the module whose weights are sent, sharded or not.
        crew: the processes that train; None for those of torch.distributed. The first speaks to the server, all take part in
            gathering, and all wait for its word: a process that did not would play on with the old weights.
        send: broadcasts the tensors; None for vLLM's NCCL engine through TRL's client, which needs a GPU and vLLM.
        gather: a context in which the given parameters are whole.
    """

    def __init__(
        self,
        policy: VLLMPolicy,
        trained: Callable[[], nn.Module],
        *,
        crew: Crew | None = None,
        send: Send | None = None,
        gather: Callable[[list[nn.Parameter]], AbstractContextManager[Any]] = gathered,
    ) -> None:
        self._policy, self._trained, self._crew = policy, trained, crew
        self._send, self._gather = send or _nccl, gather

    def publish(self) -> None:
        """Raises: ModelError: the server refused, or cannot take weights; on every process."""
        crew, trained = self._crew or _crew(), self._trained()
        whole, failed = whole_parameters(trained, self._gather), None
        if crew.rank == 0:
            failed = self._tell(trained, whole)
        for _ in whole:  # gathering is collective: whoever is done early, or failed, goes through the rest of it
            pass
        said = crew.all("" if failed is None else f"{type(failed).__name__}: {failed}")
        if failed is not None:
            raise failed
        if any(said):
            raise ModelError(f"the server did not get the new weights: {said[0]}")
        if crew.rank:
            self._policy.version += 1

    def _tell(self, trained: nn.Module, whole: Iterator[tuple[str, Tensor]]) -> Exception | None:
        """What went wrong, for the others to hear of it before it is raised."""
        server = self._policy.server
        about = [(name, str(p.dtype).removeprefix("torch."), _shape(p)) for name, p in plain_names(trained)]
        try:
            server.post("/start_weight_update", {})
            try:
                self._send(server, about, whole)
            finally:
                server.post("/finish_weight_update", {})
            self._policy.weights_changed()
        except Exception as error:
            return error
        return None


def _crew() -> Crew:
    """The processes of torch.distributed, or this one alone."""
    together = dist.is_available() and dist.is_initialized()
    return Crew(dist.get_rank(), dist.get_world_size()) if together else Crew()


def _shape(parameter: nn.Parameter) -> list[int]:
    """Of the whole: ZeRO-3 keeps it beside a shard, a DTensor has it."""
    return list(getattr(parameter, "ds_shape", parameter.shape))


def read_logprobs(given: Any, ids: Sequence[int], name: str) -> tuple[float, ...]:
    """The log-prob of each sampled token, from either of the server's two shapes.

    Raises:
        ModelError: there are none, or they are of other tokens.
    """
    entries = []
    if isinstance(given, dict) and "content" in given:
        entries = [(e["token"], e["logprob"]) for e in given["content"]]
    elif isinstance(given, dict) and "token_logprobs" in given:
        entries = list(zip(given["tokens"], given["token_logprobs"], strict=False))
    said = [token for token, _ in entries]
    if said != [f"token_id:{t}" for t in ids]:
        raise ModelError(
            f"{name}: its log-probs are not of the {len(ids)} tokens that it sampled, so they cannot be trained on"
        )
    return tuple(float(p) for _, p in entries)


def _data_url(pixels: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


_clients: dict[str, Any] = {}


def _nccl(server: VLLMServer, about: list[tuple[str, str, list[int]]], named: Iterator[tuple[str, Tensor]]) -> None:
    """By TRL's own client, whose NCCL group is opened at the first update."""
    from trl.generation.vllm_client import VLLMClient

    try:
        client = _clients.get(server.address)
        if client is None:
            client = VLLMClient(base_url=server.address)
            client.init_communicator()
            _clients[server.address] = client
    except (ImportError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"{server.address}: weights cannot be sent from here ({error})") from None
    client._updating_weights = True
    client.update_named_params(about, named)

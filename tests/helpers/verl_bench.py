"""verl's end of its agent loop, twice: verl's own code where it is installed, and a stand-in that does the same to a batch.

    bench.trains(...)      the trainer of `trainer.use_v1`, verl's default: a group of sessions, each put into a queue
    bench.trains_v0(...)   the trainer before it: one batch of all samples

Both are told as `Seen`, so one set of tests holds for both. Of verl the workers, the dataset, the processing of images
and the outputs are real; the transport is not: `ray` and `transfer_queue` are mocks. What was run:

    python -m venv V; V/bin/pip install -e . ; V/bin/pip install --no-deps verl==0.9.1 tensordict==0.10.0 \
        transformers==5.9.0 tokenizers==0.22.2 'huggingface_hub<2' hydra-core omegaconf antlr4-python3-runtime==4.9.3 \
        codetiming torchdata cloudpickle orjson importlib_metadata pyvers peft cachetools pylatexenc aiohttp aiosignal \
        frozenlist multidict yarl propcache aiohappyeyeballs attrs zipp
    V/bin/python -m pytest tests/train/test_grpo_verl.py

The stand-in keeps what the recipe has to live with, as verl 0.9.1 has it (file and class in each docstring).
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from playhead.core.tasks import read_tasks
from playhead.train.recipes.verl.export import export, row_of
from pydantic import BaseModel

LOOP = "verl.experimental.agent_loop.agent_loop"
RECIPE = "playhead.train.recipes.verl.agent_loop"
PROMPT, RESPONSE, VERSION = 512, 1024, 3
CALL = '<tool_call>\n{"name": "temporal_zoom", "arguments": {"start_s": 20, "end_s": 23}}\n</tool_call>'
SAID = (f"<think>look</think>\n{CALL}<|im_end|>", "<think>seen</think>\n<answer>left</answer><|im_end|>")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a trainer has after the rollouts: one entry a sample."""

    status: str
    """Of the group: "finished", or "failure" where a session of it failed."""
    scores: tuple[float, ...]
    masks: tuple[tuple[int, ...], ...]
    logprobs: tuple[tuple[float, ...], ...] | None
    placeholders: tuple[int, ...]
    """Image tokens in prompt and response."""
    patches: tuple[int, ...]
    """Of the images that the model is trained with."""
    parts: dict[str, tuple[float, ...]]
    """By name: the parts of the rewards."""


class TokenOutput(BaseModel):
    """verl/workers/rollout/replica.py: TokenOutput, less what the recipe does not read."""

    token_ids: list[int]
    log_probs: list[float] | None = None
    extra_fields: dict[str, Any] = {}


class Servers:
    """verl's LLMServerClient: in every session it looks, then answers.

    Args:
        broken: numbers of sessions, in the order in which they begin, whose server is gone.
        mute: numbers of sessions whose server gives no log-probs, asked or not.
    """

    def __init__(self, encode: Any, output: Any, broken: Collection[int], mute: Collection[int]) -> None:
        self._encode, self._output, self._broken, self._mute = encode, output, broken, mute
        self._turns: dict[str, int] = {}

    async def generate(self, request_id, *, prompt_ids, sampling_params, image_data=None, video_data=None):
        turn = self._turns[request_id] = self._turns.get(request_id, -1) + 1
        session = list(self._turns).index(request_id)
        if session in self._broken:
            raise ConnectionError("the server is gone")
        ids = list(self._encode(SAID[turn]))
        asked = sampling_params.get("logprobs") and session not in self._mute
        told = {"global_steps": VERSION + turn, "min_global_steps": VERSION, "max_global_steps": VERSION + turn}
        return self._output(token_ids=ids, log_probs=[-0.5] * len(ids) if asked else None, extra_fields=told)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Rows of one task, played and handed over."""

    checkpoint: Path
    world: Path
    home: Path
    yaml: dict[str, Any]
    """The entry of `playhead_agent.yaml`."""
    prompt: int = PROMPT
    response: int = RESPONSE
    real = False

    def trains(self, samples: int, *, logprobs: bool = True, broken=(), mute=()) -> Seen:
        raise NotImplementedError

    def trains_v0(self, samples: int, *, logprobs: bool = True, broken=(), mute=()) -> Seen:
        raise NotImplementedError

    def processor(self) -> Any:
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(self.checkpoint)

    def config(self, logprobs: bool) -> dict[str, Any]:
        sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "calculate_log_probs": logprobs}
        lengths = {"prompt_length": self.prompt, "response_length": self.response}
        rollout = {**sampling, **lengths, "agent": {}, "multi_turn": {}, "val_kwargs": {}}
        model = {"path": str(self.checkpoint)}
        return {"data": {}, "actor_rollout_ref": {"model": model, "rollout": rollout}}


# The stand-in.


class AgentLoopMetrics(BaseModel):
    """agent_loop.py: AgentLoopMetrics."""

    generate_sequences: float = 0.0
    tool_calls: float = 0.0
    compute_score: float = 0.0
    num_preempted: int = -1


class AgentLoopOutput(BaseModel):
    """agent_loop.py: AgentLoopOutput."""

    prompt_ids: list[int]
    response_ids: list[int]
    response_mask: list[int]
    response_logprobs: list[float] | None = None
    multi_modal_data: dict[str, Any] | None = None
    reward_score: float | None = None
    num_turns: int = 0
    metrics: AgentLoopMetrics
    extra_fields: dict[str, Any] = {}


class AgentLoopBase:
    """agent_loop.py: AgentLoopBase."""

    def __init__(
        self,
        trainer_config,
        server_manager,
        tokenizer,
        processor,
        dataset_cls,
        data_config,
        hf_model_type=None,
        **kwargs,
    ):
        self.config = trainer_config.config
        self.rollout_config = self.config.actor_rollout_ref.rollout
        self.server_manager, self.tokenizer, self.processor = server_manager, tokenizer, processor


@dataclass(frozen=True, kw_only=True)
class StandIn(Bench):
    def trains(self, samples, *, logprobs=True, broken=(), mute=()):
        """verl/trainer/ppo/v1/agent_loop_tq.py: AgentLoopWorkerTQ; what raises makes its session fail and no other, and
        what comes says which weights it is of, since trainer_base.py (_compute_metrics) makes whole numbers of that."""
        done = self._play(samples, logprobs, broken, mute, numbered=True)
        sound = [output for output in done if not isinstance(output, Exception)]
        np.array([output.extra_fields.get("min_global_steps") for output in sound], dtype=int)
        np.array([output.extra_fields.get("max_global_steps") for output in sound], dtype=int)
        return self._seen(sound, "finished" if len(sound) == samples else "failure")

    def trains_v0(self, samples, *, logprobs=True, broken=(), mute=()):
        """agent_loop.py: AgentLoopWorker; what raises takes the batch with it, and every tensor is of one width."""
        done = self._play(samples, logprobs, broken, mute, numbered=False)
        for output in done:
            if isinstance(output, Exception):
                raise output
            assert len(output.prompt_ids) <= self.prompt and len(output.response_ids) <= self.response
        return self._seen(done, "finished")

    def _play(self, samples, logprobs, broken, mute, *, numbered):
        from playhead.agent.renderers.qwen3vl import Qwen3VLRenderer

        renderer = Qwen3VLRenderer.from_checkpoint(self.checkpoint)
        config, row = _dots(self.config(logprobs)), row_of(read_tasks(self.world)[0], 0)
        servers = Servers(renderer.encode, TokenOutput, broken, mute)
        given = {
            "trainer_config": SimpleNamespace(config=config), "server_manager": servers, "tokenizer": None,
            "processor": renderer.processor, "hf_model_type": "qwen3_vl", "dataset_cls": None,
            "data_config": SimpleNamespace(config=config.data), "tools": SimpleNamespace(tools=[]),
        }  # fmt: skip
        make = importlib.import_module(RECIPE).PlayheadAgentLoop
        sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": logprobs}

        async def one(number: int) -> AgentLoopOutput:
            entry = {name: value for name, value in self.yaml.items() if name != "_target_"}
            extra = {"session_id": number, "uid": "u0", "global_steps": 1} if numbered else {}
            return await make(**{**entry, **given}).run(dict(sampling), **{**row, "raw_prompt": row["prompt"], **extra})

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(one(i) for i in range(samples)), return_exceptions=True)

        return asyncio.run(all_of_them())

    def _seen(self, outputs, status):
        """agent_loop.py: _compute_multi_modal_inputs, _postprocess; whether there are log-probs, and the names of the
        parts, are asked of the first sample."""
        parts = [o.extra_fields.get("reward_extra_info", {}) for o in outputs]
        logprobs = None
        if outputs and outputs[0].response_logprobs is not None:
            logprobs = tuple(tuple(o.response_logprobs) for o in outputs)
        processor = self.processor()
        patches = []
        for output in outputs:
            images = (output.multi_modal_data or {}).get("images")
            grids = processor.image_processor(images=images, return_tensors="pt")["image_grid_thw"] if images else None
            patches.append(0 if grids is None else int(grids.prod(-1).sum()))
        return Seen(
            status=status,
            scores=tuple(o.reward_score for o in outputs),
            masks=tuple(tuple(o.response_mask) for o in outputs),
            logprobs=logprobs,
            placeholders=tuple((o.prompt_ids + o.response_ids).count(processor.image_token_id) for o in outputs),
            patches=tuple(patches),
            parts={name: tuple(info[name] for info in parts) for name in (parts[0] if parts else ())},
        )


def _dots(plain: Any) -> Any:
    """A tree of settings that is read as OmegaConf's is."""
    return SimpleNamespace(**{k: _dots(v) for k, v in plain.items()}) if isinstance(plain, dict) else plain


@contextmanager
def stand_in() -> Iterator[None]:
    """verl's module is the stand-in, and the recipe is loaded on it."""
    names = [LOOP[: i if i > 0 else None] for i in [*(j for j, c in enumerate(LOOP) if c == "."), 0]]
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, ModuleType(name))
        for thing in (AgentLoopBase, AgentLoopMetrics, AgentLoopOutput):
            setattr(sys.modules[LOOP], thing.__name__, thing)
        with _recipe():
            yield


@contextmanager
def _recipe() -> Iterator[None]:
    """The recipe is loaded anew, and forgotten; by its package too, where hydra looks first."""
    package, _, name = RECIPE.rpartition(".")
    loaded = vars(importlib.import_module(package))
    try:
        sys.modules.pop(RECIPE, None)
        loaded.pop(name, None)
        yield
    finally:
        sys.modules.pop(RECIPE, None)
        loaded.pop(name, None)


# verl itself.


class _Transport(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Mocks of what carries things between verl's processes: nothing of it is called but `ray.remote`, on classes."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "transfer_queue"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Mock(spec.name)

    def exec_module(self, module):
        if module.__name__ == "ray":
            module.remote = lambda made: made


class _Mock(ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock()


@contextmanager
def verl_itself() -> Iterator[None]:
    """verl's own modules, and the recipe on them; skips where there are none that run."""
    if importlib.util.find_spec("verl") is None:
        pytest.skip("verl is not installed; tests/helpers/verl_bench.py says how it was")
    from packaging.version import Version

    if Version(importlib.import_module("transformers").__version__) >= Version("5.11"):
        pytest.skip("verl 0.9.1 asks for transformers below 5.11")
    transport = _Transport()
    sys.meta_path.insert(0, transport)
    try:
        for name in (LOOP, "verl.trainer.ppo.v1.agent_loop_tq"):
            importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"verl cannot be imported: {error}")
    finally:
        sys.meta_path.remove(transport)
    with _recipe():
        yield


@dataclass(frozen=True, kw_only=True)
class Verl(Bench):
    real = True

    def trains(self, samples, *, logprobs=True, broken=(), mute=()):
        from verl.trainer.ppo.v1 import agent_loop_tq
        from verl.utils import tensordict_utils

        queue = _Queue()
        worker, rows = self._worker(agent_loop_tq.AgentLoopWorkerTQ, logprobs, broken, mute, samples)
        worker.background_tasks = set()
        rows["uid"] = np.array(["u0"] * len(rows["raw_prompt"]), dtype=object)
        batch = tensordict_utils.get_tensordict({name: column[:1] for name, column in rows.items()})
        tensordict_utils.assign_non_tensor_data(batch, "global_steps", 1)

        async def go() -> None:
            await worker.generate_sequences(batch)
            await asyncio.gather(*worker.background_tasks)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(agent_loop_tq, "tq", queue)
            asyncio.run(go())
        np.array([tag["min_global_steps"] for tag in queue.tags], dtype=int)
        np.array([tag["max_global_steps"] for tag in queue.tags], dtype=int)
        extra = [dict(row["extra_fields"]) for row in queue.rows]
        has = all("rollout_log_probs" in row for row in queue.rows)
        infos = [e["reward_extra_info"] for e in extra]
        return Seen(
            status=queue.status,
            scores=tuple(float(row["rm_scores"].sum()) for row in queue.rows),
            masks=tuple(tuple(row["response_mask"].tolist()) for row in queue.rows),
            logprobs=tuple(tuple(row["rollout_log_probs"].tolist()) for row in queue.rows) if has else None,
            placeholders=tuple(int((row["input_ids"] == self.processor().image_token_id).sum()) for row in queue.rows),
            patches=tuple(_patches(row["multi_modal_inputs"]) for row in queue.rows),
            parts={name: tuple(info[name] for info in infos) for name in infos[0]} if infos else {},
        )

    def trains_v0(self, samples, *, logprobs=True, broken=(), mute=()):
        from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
        from verl.protocol import DataProto

        worker, rows = self._worker(AgentLoopWorker, logprobs, broken, mute, samples)
        out = asyncio.run(worker.generate_sequences(DataProto.from_single_dict(rows)))
        batch, columns = out.batch, out.non_tensor_batch
        lengths = batch["attention_mask"][:, self.prompt :].sum(-1).tolist()

        def whole(name: str) -> tuple[Any, ...]:
            return tuple(tuple(row[:n].tolist()) for row, n in zip(batch[name], lengths, strict=True))

        return Seen(
            status="finished",
            scores=tuple(batch["rm_scores"].sum(-1).tolist()),
            masks=whole("response_mask"),
            logprobs=whole("rollout_log_probs") if "rollout_log_probs" in batch.keys() else None,  # noqa: SIM118
            placeholders=tuple((batch["input_ids"] == self.processor().image_token_id).sum(-1).tolist()),
            patches=tuple(_patches(inputs) for inputs in columns["multi_modal_inputs"]),
            parts={name: tuple(columns[name].tolist()) for name in out.meta_info["reward_extra_keys"]},
        )

    def _worker(self, cls, logprobs, broken, mute, samples):
        """A worker as its constructor makes it, and the rows of its dataset over the recipe's export."""
        from omegaconf import OmegaConf
        from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
        from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn
        from verl.utils.tokenizer import hf_processor, hf_tokenizer
        from verl.workers.rollout.replica import TokenOutput as Output

        tokenizer, processor = hf_tokenizer(str(self.checkpoint)), hf_processor(str(self.checkpoint))
        export(self.world, self.home / "tasks.parquet")
        read = {"cache_dir": str(self.home / "rows"), "filter_overlong_prompts_workers": 1}
        files = [str(self.home / "tasks.parquet")]
        dataset = RLHFDataset(data_files=files, tokenizer=tokenizer, processor=processor, config=OmegaConf.create(read))
        _agent_loop_registry["playhead"] = OmegaConf.create(self.yaml)
        plain = self.config(logprobs)
        plain["actor_rollout_ref"]["rollout"]["n"] = samples
        config = OmegaConf.create(plain)
        worker = object.__new__(cls)
        worker.__dict__.update(
            config=config, rollout_config=config.actor_rollout_ref.rollout, tokenizer=tokenizer, processor=processor,
            llm_client=Servers(lambda text: tokenizer.encode(text, add_special_tokens=False), Output, broken, mute),
            reward_loop_worker_handles=None, dataset_cls=RLHFDataset, hf_model_type="qwen3_vl", mm_processor_kwargs={},
            distillation_enabled=False, tools=[],
        )  # fmt: skip
        return worker, collate_fn([dataset[0] for _ in range(samples)])


class _Queue:
    """What verl puts into TransferQueue."""

    def __init__(self) -> None:
        self.status, self.rows, self.tags = "", [], []

    async def async_kv_put(self, *, key, partition_id, tag):
        self.status = tag["status"]

    async def async_kv_batch_put(self, *, keys, fields, tags, partition_id):
        self.rows += [{name: fields[name][i] for name in fields.keys()} for i in range(len(keys))]  # noqa: SIM118
        self.tags += tags


def _patches(inputs: Any) -> int:
    grids = getattr(inputs, "data", inputs).get("image_grid_thw")
    return 0 if grids is None else int(torch.as_tensor(grids).prod(-1).sum())

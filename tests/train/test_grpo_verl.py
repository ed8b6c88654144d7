"""The verl recipe against stand-ins of the classes that verl documents: rows, tokens, masks, images, whole turns."""

import asyncio
import importlib
import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from playhead.core.nouns import Completion, FinishReason
from playhead.core.policy import GenerateRequest, Sampling
from playhead.core.tasks import read_tasks, write_tasks

pytest.importorskip("datasets")


@dataclass
class Metrics:
    generate_sequences: float = 0.0
    tool_calls: float = 0.0


@dataclass
class Output:
    prompt_ids: list[int]
    response_ids: list[int]
    response_mask: list[int]
    metrics: Metrics
    response_logprobs: list[float] | None = None
    multi_modal_data: dict[str, Any] | None = None
    reward_score: float | None = None
    num_turns: int = 0
    extra_fields: dict[str, Any] = field(default_factory=dict)


class Base:
    def __init__(self, trainer_config, server_manager, tokenizer, processor, **kwargs):
        assert not kwargs, "verl passes the rest of the yaml to the class"
        self.config, self.server_manager, self.processor = trainer_config.config, server_manager, processor


@pytest.fixture
def loop_module(monkeypatch):
    names = ("verl", "verl.experimental", "verl.experimental.agent_loop", "verl.experimental.agent_loop.agent_loop")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    stand_in = sys.modules[names[-1]]
    stand_in.AgentLoopBase, stand_in.AgentLoopOutput, stand_in.AgentLoopMetrics = Base, Output, Metrics
    name = "playhead.train.recipes.verl.agent_loop"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


def test_rows(make_task, tmp_path):
    from datasets import Dataset
    from playhead.core.codec import from_plain
    from playhead.core.nouns import Task
    from playhead.train.recipes.verl.export import export

    tasks = [make_task(number=i) for i in range(3)]
    write_tasks(tmp_path / "tasks.jsonl", tasks)
    assert export(tmp_path, tmp_path / "tasks.parquet") == 3
    rows = Dataset.from_parquet(str(tmp_path / "tasks.parquet"), cache_dir=str(tmp_path / "cache"))
    assert set(rows.column_names) == {"prompt", "agent_name", "data_source", "ability", "reward_model", "extra_info"}
    back = from_plain(Task, json.loads(rows[1]["extra_info"]["task"]), "row")
    assert back == read_tasks(tmp_path)[1]


def test_parts_of_a_trajectory_and_whole_turns_only(loop_module, make_task, make_trajectory):
    made = make_trajectory(make_task())
    prompt, response, mask, logprobs, frames = loop_module.parts_of(made, 100)
    assert prompt + response == list(made.token_ids)
    assert [0] * len(prompt) + mask == list(made.loss_mask)
    assert len(logprobs) == len(response) and frames == list(made.frames)
    _, short, _, _, fewer = loop_module.parts_of(made, len(response) - 1)
    assert short == response[: len(short)] and len(short) < len(response) - 1
    assert fewer == list(made.frames)[: len(fewer)]
    assert loop_module.parts_of(replace(made, error="gone"), 100)[1] == []


def test_an_episode_with_the_agent_and_its_tools(loop_module, world, tmp_path):
    """The real agent on a real film; the server manager says what an oracle would."""
    from playhead.agent.embedded import checkpoint_dir
    from playhead.agent.renderers.qwen3vl import Qwen3VLRenderer
    from playhead.train.recipes.verl.export import row_of

    folder = checkpoint_dir()
    renderer = Qwen3VLRenderer.from_checkpoint(folder)
    asked = []

    class Manager:
        async def generate(self, *, request_id, prompt_ids, sampling_params, image_data):
            asked.append((request_id, len(prompt_ids), len(image_data or ()), sampling_params["temperature"]))
            call = '<tool_call>\n{"name": "temporal_zoom", "arguments": {"start_s": 20, "end_s": 23}}\n</tool_call>'
            text = f"<think>look</think>\n{call}" if len(asked) == 1 else "<think>seen</think>\n<answer>left</answer>"
            ids = renderer.encode(text + "<|im_end|>")
            return SimpleNamespace(token_ids=list(ids), log_probs=[-0.5] * len(ids))

    rollout = SimpleNamespace(response_length=4096)
    config = SimpleNamespace(
        actor_rollout_ref=SimpleNamespace(rollout=rollout, model=SimpleNamespace(path=str(folder)))
    )
    loop = loop_module.PlayheadAgentLoop(
        trainer_config=SimpleNamespace(config=config), server_manager=Manager(), tokenizer=None,
        processor=renderer.processor, rubric="world", home=str(tmp_path), tools=["temporal_zoom"],
    )  # fmt: skip
    task = read_tasks(world)[0]
    row = row_of(task, 0)
    out = asyncio.run(loop.run({"temperature": 1.0, "top_p": 1.0, "logprobs": True}, extra_info=row["extra_info"]))
    assert len(asked) == 2 and len({session for session, *_ in asked}) == 1
    assert out.extra_fields["stop"] == "answered" and isinstance(out.reward_score, float)
    assert len(out.response_ids) == len(out.response_mask) == len(out.response_logprobs)
    assert {p for p, m in zip(out.response_logprobs, out.response_mask, strict=True) if m} == {-0.5}
    pads = (out.prompt_ids + out.response_ids).count(renderer.image_token_id)
    images = out.multi_modal_data["image"]
    assert len(images) == asked[1][2] > asked[0][2] and pads == 4 * len(images)
    assert Path(task.video).is_file()


def test_a_server_that_fails_is_a_failed_completion():
    from playhead.train.recipes.verl.policy import VerlPolicy

    class Broken:
        async def generate(self, **kwargs):
            raise ConnectionError("server gone")

    policy = VerlPolicy(Broken(), SimpleNamespace(), SimpleNamespace(), {})
    request = GenerateRequest(session="s", token_ids=(1,), frames=(), messages=(), sampling=Sampling())
    (said,) = asyncio.run(policy.generate([request]))
    assert isinstance(said, Completion) and said.finish_reason is FinishReason.ERROR and "server gone" in said.text

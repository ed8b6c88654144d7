"""Every strategy on the model that ships and a real film: it runs, it keeps its budget, it answers."""

import asyncio
from pathlib import Path

import pytest
from playhead.agent.scaling.purse import SUMMED
from playhead.agent.scaling.spec import STRATEGIES, parse_strategy
from playhead.agent.video_agent import VideoAgent
from playhead.core.budget import Budget
from playhead.core.nouns import StopReason
from playhead.core.tasks import read_tasks

SMALL = {
    "vote": "vote:n=3", "best-of-n": "best-of-n:n=2", "widen": "widen:n=2,most=16", "zoom": "zoom:nodes=5", "mcts": "mcts:n=3",
    "refine": "refine:rounds=1", "iterate": "iterate:rounds=1", "map-reduce": "map-reduce:segments=3",
}  # fmt: skip


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> VideoAgent:
    return VideoAgent("embedded", home=tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_runs_within_its_budget(name: str, agent: VideoAgent, world: Path) -> None:
    task = next(t for t in read_tasks(world) if t.kind == "attribute")
    budget = Budget(frames=64, tool_calls=8, sampled_tokens=1200, model_calls=16, wall_s=None)
    scaled = asyncio.run(parse_strategy(SMALL.get(name, name)).run(agent, task, budget))
    assert scaled.error is None and scaled.answer is not None and scaled.trajectories and scaled.trace is not None
    assert scaled.answer.text != "unknown" and scaled.answer.confidence is not None
    for limit in SUMMED:
        assert getattr(scaled.usage, limit) <= getattr(budget, limit), limit
    assert scaled.stop_reason is not StopReason.ERROR
    for trajectory in scaled.trajectories:
        trajectory.check()


def test_what_was_shared_is_counted(agent: VideoAgent, world: Path) -> None:
    task = next(t for t in read_tasks(world) if t.kind == "count")
    scaled = asyncio.run(parse_strategy("vote:n=4,early=no").run(agent, task))
    prompts = scaled.usage.prefill_tokens + scaled.usage.reused_tokens
    assert scaled.usage.reused_tokens > prompts / 2 and scaled.usage.model_calls == scaled.usage.turns >= 4

"""A run that was cut after any node goes on from its checkpoint, in a new agent, to the same trajectory."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3

import pytest
from playhead.agent import graph as graph_module
from playhead.agent.embedded import EMBEDDED_PROFILE
from playhead.agent.episode import Pending
from playhead.agent.policies.scripted import ScriptedPolicy
from playhead.agent.policies.transformers import TransformersPolicy
from playhead.agent.saving import StateSerializer
from playhead.agent.video_agent import VideoAgent
from playhead.core.budget import Budget, Usage
from playhead.core.errors import DataError
from playhead.core.frames import FrameStore
from playhead.core.nouns import StopReason, Task

CALLS = (
    '<think>Look, and say what is there.</think><tool_call>{"name": "temporal_zoom", "arguments": {"start_s": 28, "end_s": 36}}'
    '</tool_call><tool_call>{"name": "caption_frames", "arguments": {"times_s": [31]}}</tool_call>'
)
SEARCH = '<tool_call>{"name": "search_clips", "arguments": {"query": "red"}}</tool_call>'
ANSWER = "<answer>red</answer><evidence>30-34</evidence>"


def reply(request):
    """A script that is a function of the conversation, as a model is."""
    said = sum(m.role == "assistant" for m in request.messages)
    if request.session.rpartition("/")[2].startswith("caption"):
        return "a red wall"
    return [CALLS, "unreadable", SEARCH, ANSWER][min(said, 3)]


class Cut(BaseException):
    """As if the process had ended there."""


def timeless(trajectory):
    turns = tuple(
        dataclasses.replace(
            t,
            completion=dataclasses.replace(t.completion, wall_s=0.0, prefill_tokens=0, reused_tokens=0),
            observations=tuple(dataclasses.replace(o, wall_s=0.0) for o in t.observations),
        )
        for t in trajectory.turns
    )
    usage = dataclasses.replace(trajectory.usage, wall_s=0.0, prefill_tokens=0, reused_tokens=0)
    return dataclasses.replace(trajectory, turns=turns, usage=usage)


@pytest.fixture
def resumed(monkeypatch):
    """Runs an episode that is cut after every single node, each time going on in a new agent."""

    def until_done(new_agent, task, run_id):
        cuts = 0
        while True:
            steps = {"left": 2}  # the node that was cut runs, the next one is cut
            originals = {n: getattr(graph_module, n) for n in ("skim", "think", "act", "answer")}

            def wrap(step, steps=steps):
                async def cut(state, episode, emit):
                    steps["left"] -= 1
                    if steps["left"] == 0:
                        raise Cut
                    return await step(state, episode, emit)

                cut.__name__ = step.__name__
                return cut

            for name, step in originals.items():
                monkeypatch.setattr(graph_module, name, wrap(step))
            try:
                return asyncio.run(new_agent().arun(task, run_id=run_id)), cuts
            except Cut:
                cuts += 1
            finally:
                for name, step in originals.items():
                    monkeypatch.setattr(graph_module, name, step)

    return until_done


def test_cut_after_any_node_a_run_ends_the_same(renderer, encoder, film, tmp_path, resumed):
    task = Task(id="t", question="Which colour?", video=str(film), choices=("green", "red"))

    def agent(name):
        return VideoAgent(
            ScriptedPolicy(renderer, reply), encoder=encoder, home=tmp_path / "home", profile=EMBEDDED_PROFILE,
            checkpoints=tmp_path / name / "runs.sqlite",
        )  # fmt: skip

    whole = asyncio.run(agent("a").arun(task, run_id="r"))
    assert whole.stop_reason is StopReason.ANSWERED and len(whole.turns) == 4
    pieces, cuts = resumed(lambda: agent("b"), task, "r")
    assert cuts == 7  # skim, four thinks, two acts; the answer is the eighth node
    assert timeless(pieces) == timeless(whole)
    # A run that has ended gives what it gave, and the same id is not another question's.
    assert timeless(asyncio.run(agent("b").arun(task, run_id="r"))) == timeless(whole)
    with pytest.raises(DataError, match="another question"):
        asyncio.run(agent("b").arun(dataclasses.replace(task, question="How many?"), run_id="r"))
    with sqlite3.connect(tmp_path / "b" / "runs.sqlite") as db:
        assert {row[0] for row in db.execute("SELECT DISTINCT type FROM checkpoints")} == {"msgpack"}
        assert {row[0] for row in db.execute("SELECT DISTINCT type FROM writes")} <= {"msgpack", "null"}
        (largest,) = db.execute("SELECT max(length(checkpoint)) FROM checkpoints").fetchone()
    assert largest < 100_000  # no pixels


def test_a_model_goes_on_without_its_attention_cache(checkpoint, encoder, film, tmp_path, resumed):
    task = Task(id="t", question="Which colour?", video=str(film))
    policies = []

    def agent(name):
        store = FrameStore(tmp_path / "frames")
        policies.append(TransformersPolicy.load(checkpoint, store))
        return VideoAgent(
            policies[-1], encoder=encoder, home=tmp_path / "home", temperature=1.0, seed=5, tools=("temporal_zoom",),
            profile=dataclasses.replace(EMBEDDED_PROFILE, turn_tokens=40), checkpoints=tmp_path / name / "runs.sqlite",
            budget=Budget(turns=4),
        )  # fmt: skip

    whole = asyncio.run(agent("a").arun(task, run_id="r"))
    pieces, cuts = resumed(lambda: agent("b"), task, "r")
    assert cuts >= 2 and timeless(pieces).token_ids == timeless(whole).token_ids
    assert pieces.answer == whole.answer


def test_only_our_own_types_are_read_back():
    serde = StateSerializer()
    value = {"pending": Pending(token_ids=(1, 2)), "usage": Usage(turns=1), "stop": StopReason.TIMEOUT, "turns": ()}
    assert serde.loads_typed(serde.dumps_typed(value)) == value
    kind, data = serde.dumps_typed(Foreign(x=1))
    assert not isinstance(serde.loads_typed((kind, data)), Foreign)


@dataclasses.dataclass
class Foreign:
    x: int

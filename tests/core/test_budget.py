"""Model calls are a limit like the others, usages sum, and what was written before there were model calls is still read."""

import json

import pytest
from playhead.core.budget import Budget, Usage
from playhead.core.nouns import StopReason, Task
from playhead.core.trajectory import Trajectory, from_json, to_json


def test_model_calls_are_a_limit() -> None:
    budget = Budget(model_calls=3)
    assert budget.exceeded(Usage(model_calls=2)) is None
    assert budget.exceeded(Usage(model_calls=3)) is StopReason.MAX_TURNS
    assert budget.left(Usage(model_calls=1), "model_calls") == 2
    assert Budget().model_calls is None
    with pytest.raises(ValueError, match="model_calls"):
        Budget(model_calls=-1)


def test_usages_sum_but_of_the_longest_context_the_longer_one_stays() -> None:
    total = Usage(frames=2, context_tokens=100, model_calls=1) + Usage(frames=3, context_tokens=70, model_calls=4)
    assert (total.frames, total.context_tokens, total.model_calls) == (5, 100, 5)


def test_a_trajectory_written_before_there_were_model_calls() -> None:
    task = Task(id="t", question="?", video="v.mp4")
    data = json.loads(to_json(Trajectory(id="a", group_id="t", task=task, usage=Usage(turns=2, model_calls=2))))
    del data["usage"]["model_calls"], data["budget"]["model_calls"]
    old = from_json(json.dumps(data))
    assert (old.usage.turns, old.usage.model_calls, old.budget.model_calls) == (2, 0, None)

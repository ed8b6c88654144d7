"""The engine's two claims about crowds, in small: the benchmarks that hold them to their full size are run by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playhead.core.nouns import Task

torch = pytest.importorskip("torch")


@pytest.fixture
def tasks(film, tmp_path, monkeypatch) -> list[Task]:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    asked = ("When does the red star appear?", "Which colour comes first?")
    return [Task(id=f"t{i}", question=q, video=str(film), choices=("red", "grey")) for i, q in enumerate(asked)]


def test_a_seed_fixes_an_episode_whatever_else_is_under_way(tasks):
    from playhead.agent.video_agent import VideoAgent
    from playhead.benchmarks.seeds import compare, margin

    agent = VideoAgent("embedded")
    agent.budget = replace(agent.budget, wall_s=None, turns=3)
    result = compare(agent, tasks, (1.0, 0.0), 8)
    assert result["faults"] == 0 and result["token-equal"] + result["ties"] == 8, result
    assert result["sampled tokens"] > 100
    assert result["largest difference of log-probs where tokens agree"] <= 1e-4
    logits = torch.tensor([0.0, 1e-5, -9.0])
    assert margin(logits, (), 0.0, 0.0, 0, 1) < 1e-4 < margin(logits, (), 0.0, 0.0, 0, 2)
    assert margin(logits, (2,), 1.0, 0.5, 0, 1) < 1e-4 < margin(logits, (2,), 1.0, 0.4, 0, 1)


def test_every_question_ends_once_though_requests_are_spoilt(tasks):
    from playhead.benchmarks.crowd import crowd, sound

    # 2,048 tokens of 5,120 bytes, a quarter more while they grow: the bound holds any one sequence, but not all of them.
    result = crowd(tasks, 16, cache_bytes=14_000_000, share=0.3, context_tokens=2048)
    assert sum(result["faults"].values()) >= 3 and result["with an answer"] > 0, result
    assert sound(result), result
    assert {"spoilt", "errors of others", "others without an answer"} <= result.keys() and 0 < result["spoilt"] < 16
    assert result["compared with a run without faults"] == 16 - result["spoilt"]
    wrong = {"errors of others": ["run-1"], "others without an answer": ["run-1"], "that ended": 15, "with the same tokens": 0,
             "still under way": 1, "caches at most, MB": 14.1}  # fmt: skip
    assert not any(sound({**result, name: value}) for name, value in wrong.items())

"""Budgets are hard, and an answer always exists, whatever the policy does."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playhead.agent.embedded import EMBEDDED_PROFILE
from playhead.agent.policies.scripted import ScriptedPolicy
from playhead.agent.video_agent import VideoAgent
from playhead.core.budget import Budget
from playhead.core.nouns import StopReason, Task

CALLS = [
    '<tool_call>{"name": "search_clips", "arguments": {"query": "red; grey", "k": 8}}</tool_call>',
    '<tool_call>{"name": "temporal_zoom", "arguments": {"start_s": 1, "end_s": 50}}</tool_call>',
    '<tool_call>{"name": "caption_frames", "arguments": {"times_s": [1, 2, 3]}}</tool_call>',
    '<tool_call>{"name": "nothing", "arguments": {}}</tool_call>',
    "words that are no call ",
    "<think>" + "and so on " * 60,
]


@pytest.fixture(scope="module")
def make(renderer, encoder, tmp_path_factory):
    # One agent for all, so that the video is opened once: what varies is set on it.
    one = VideoAgent(
        ScriptedPolicy(renderer, ["-"]), encoder=encoder, home=tmp_path_factory.mktemp("home"), profile=EMBEDDED_PROFILE
    )

    def agent(script, budget):
        one.policy, one.budget = ScriptedPolicy(renderer, script), budget
        return one

    return agent


def limit(low, high):
    return st.none() | st.integers(low, high)


budgets = st.builds(
    Budget, turns=st.integers(1, 6), tool_calls=limit(0, 8), frames=limit(0, 40), context_tokens=limit(0, 3000),
    sampled_tokens=limit(0, 900), wall_s=st.none() | st.floats(0, 20),
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(budget=budgets, script=st.lists(st.lists(st.sampled_from(CALLS), min_size=1, max_size=3).map("".join), min_size=1))
def test_a_policy_that_never_stops_calling_stays_within_its_budget_and_answers(make, film, budget, script):
    agent = make(script, budget)
    trajectory = asyncio.run(agent.arun(Task(id="t", question="Which?", video=str(film))))
    usage = trajectory.usage
    for name in ("turns", "tool_calls", "frames", "context_tokens", "sampled_tokens"):
        allowed = getattr(budget, name)
        assert allowed is None or getattr(usage, name) <= allowed, name
    assert trajectory.answer is not None and trajectory.error is None
    assert trajectory.stop_reason is not StopReason.ANSWERED
    assert usage.turns == len(trajectory.turns) and len(trajectory.token_ids) == (usage.context_tokens or 0)
    trajectory.check()


@pytest.mark.parametrize(("budget", "reason"), [
    (Budget(turns=3), StopReason.MAX_TURNS), (Budget(tool_calls=2, turns=9), StopReason.MAX_TOOL_CALLS),
    (Budget(frames=12, turns=9), StopReason.MAX_FRAMES), (Budget(context_tokens=900, turns=9), StopReason.CONTEXT_FULL),
    (Budget(sampled_tokens=300, turns=9), StopReason.LENGTH), (Budget(wall_s=0.0), StopReason.TIMEOUT),
])  # fmt: skip
def test_each_limit_has_its_reason(make, film, budget, reason):
    zoom = "<think>more</think>" + CALLS[1]

    def reply(request):
        return "red</answer>" if request.messages[-1].role == "assistant" else zoom

    trajectory = asyncio.run(make(reply, budget).arun(Task(id="t", question="Which?", video=str(film))))
    assert trajectory.stop_reason is reason
    assert trajectory.answer.text == ("unknown" if reason is StopReason.TIMEOUT else "red")


def test_a_turn_that_is_cut_is_closed_and_answered(make, film, renderer):
    def reply(request):
        return "red</answer>" if request.messages[-1].role == "assistant" else CALLS[-1]

    trajectory = asyncio.run(make(reply, Budget(sampled_tokens=200)).arun(Task(id="t", question="?", video=str(film))))
    assert trajectory.stop_reason is StopReason.LENGTH and trajectory.answer.text == "red"
    assert renderer.decode(trajectory.turns[1].context_ids) == "</think>\n<answer>"


def test_no_limit_is_no_limit(make, film):
    nothing = Budget(turns=None, tool_calls=None, frames=None, context_tokens=None, sampled_tokens=None, wall_s=None)
    script = [CALLS[1]] * 14 + ["<answer>red</answer>"]
    trajectory = asyncio.run(make(script, nothing).arun(Task(id="t", question="?", video=str(film))))
    assert (trajectory.stop_reason, trajectory.usage.tool_calls) == (StopReason.ANSWERED, 14)


def test_looking_at_the_last_affordable_frames_is_still_thought_about(make, film):
    script = [CALLS[1], "<answer>red</answer>"]
    trajectory = asyncio.run(make(script, Budget(frames=8)).arun(Task(id="t", question="?", video=str(film))))
    assert (trajectory.stop_reason, trajectory.usage.frames) == (StopReason.ANSWERED, 8)


def test_a_policy_that_hangs_is_left_alone_in_time(renderer, encoder, film, tmp_path):
    class Hanging(ScriptedPolicy):
        async def generate(self, requests):
            await asyncio.sleep(3600)
            raise AssertionError

    agent = VideoAgent(Hanging(renderer, ["x"]), encoder=encoder, home=tmp_path, budget=Budget(wall_s=1.0), tools=())
    started = time.monotonic()
    trajectory = asyncio.run(agent.arun(Task(id="t", question="?", video=str(film))))
    assert time.monotonic() - started < 3
    assert trajectory.stop_reason is StopReason.TIMEOUT and trajectory.answer.text == "unknown"
    assert trajectory.usage.wall_s <= 1.2

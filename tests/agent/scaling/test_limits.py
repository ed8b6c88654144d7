"""One budget for all that a strategy does: never exceeded, whatever the policy does, and an answer always exists."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playhead.agent.policies.scripted import ScriptedPolicy
from playhead.agent.scaling.purse import SUMMED, Purse
from playhead.agent.scaling.spec import STRATEGIES
from playhead.agent.scaling.tally import tally
from playhead.core.budget import Budget, Usage
from playhead.core.errors import ModelError
from playhead.core.nouns import Answer, StopReason

NESTED = [
    "vote(refine(tools,rounds=1),n=3)",
    "early-exit(vote(tools,n=2),best-of-n(direct,n=2,judge=look))",
    "widen(tools,n=2)",
    "refine(widen(direct,frames=4),rounds=1)",
]
CALLS = [
    '<tool_call>{"name": "search_clips", "arguments": {"query": "red; grey", "k": 8}}</tool_call>',
    '<think>x</think><tool_call>{"name": "temporal_zoom", "arguments": {"start_s": 1, "end_s": 50}}</tool_call>',
    '<tool_call>{"name": "caption_frames", "arguments": {"times_s": [1, 2, 3]}}</tool_call>',
    "words that are no call ",
    "<think>" + "and so on " * 60,
    "<think>so</think><answer>red</answer><evidence>30-34</evidence>",
    "<think>so</think><answer>green</answer><evidence>3-4; 8-9</evidence>",
    "red</answer>",
]


def limit(low, high):
    return st.none() | st.integers(low, high)


budgets = st.builds(
    Budget, turns=st.integers(1, 4), tool_calls=limit(0, 8), frames=limit(0, 40), context_tokens=limit(0, 3000),
    sampled_tokens=limit(0, 900), model_calls=st.integers(0, 12), wall_s=st.sampled_from([None, 0.0, 600.0]),
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    spec=st.sampled_from([*STRATEGIES, *NESTED]), budget=budgets, words=st.booleans(),
    choices=st.sampled_from([(), ("green", "red")]),
    script=st.lists(st.lists(st.sampled_from(CALLS), min_size=1, max_size=2).map("".join), min_size=1, max_size=5),
)  # fmt: skip
def test_no_limit_is_passed_and_an_answer_exists(lab, spec, budget, words, choices, script):
    said = iter(range(1 << 30))
    scaled = lab.run(spec, lambda r: script[next(said) % len(script)], budget=budget, words=words, choices=choices)
    for name in (*SUMMED, "context_tokens"):
        allowed = getattr(budget, name)
        assert allowed is None or getattr(scaled.usage, name) <= allowed, f"{spec}: {name}"
    assert all(t.usage.turns <= budget.turns and len(t.turns) <= budget.turns for t in scaled.trajectories)
    assert scaled.answer is not None and scaled.error is None, scaled.error
    assert scaled.usage.model_calls == len(lab.asked)
    assert scaled.usage.sampled_tokens >= sum(t.usage.sampled_tokens for t in scaled.trajectories)
    if budget.wall_s == 0.0 or budget.model_calls == 0:
        assert (scaled.answer.text, lab.asked) == ("unknown", [])


@pytest.mark.parametrize("spec", ["vote", "best-of-n", "refine", "mcts", "zoom", "map-reduce", "widen", "early-exit"])
def test_a_budget_for_a_little_gives_an_answer_for_a_little(lab, words, spec):
    scaled = lab.run(spec, lambda r: words["say"]("red"), budget=Budget(model_calls=2))
    assert scaled.usage.model_calls <= 2 and scaled.answer.text == "red"


def test_a_vote_that_is_cut_says_so(lab, words):
    cut = lab.run("vote:n=8", lambda r: words["say"]("red"), budget=Budget(model_calls=7))
    assert (cut.why, cut.stop_reason, len(lab.asked)) == ("budget", StopReason.MAX_TURNS, 4)


def test_a_policy_that_hangs_is_left_alone(lab):
    class Hanging:
        name, exact, renderer = "hanging", True, lab.agent.policy.renderer

        async def generate(self, requests):
            await asyncio.sleep(3600)
            raise AssertionError

    for spec in ("vote", "glance", "force"):
        scaled = lab.run(spec, Hanging(), budget=Budget(wall_s=0.5))
        assert (scaled.answer.text, scaled.stop_reason) == ("unknown", StopReason.TIMEOUT)


def test_branches_have_no_more_turns_than_an_episode(lab, words):
    """A branch inherits turns, and pays only for its own."""

    def reply(request):
        return words["search"] if "<answer>" not in request.messages[-1].text else "red</answer>"

    for spec in ("mcts:n=5", "iterate", "refine"):
        scaled = lab.run(spec, reply, budget=Budget(turns=3, wall_s=None))
        assert scaled.trajectories and all(len(t.turns) <= 3 for t in scaled.trajectories), spec
        assert scaled.usage.model_calls == len(lab.asked)


@pytest.mark.parametrize("spec", ["vote:n=3", "glance", "tools"])
def test_what_is_cut_off_at_the_last_moment_is_on_the_bill(lab, monkeypatch, spec, words):
    """Episodes come back in time by themselves. Where one does not, its calls are counted, and its turns are on the log."""
    from playhead.agent.scaling import purse

    monkeypatch.setattr(purse, "planned", lambda seconds: 100.0)
    monkeypatch.setattr("playhead.agent.scaling.bench.planned", lambda seconds: 100.0)
    calls = []

    class Slow:
        name, exact, renderer = "slow", True, lab.agent.policy.renderer

        async def generate(self, requests):
            calls.append(requests[0].session)
            if calls.count(requests[0].session) > 1 or spec == "glance":
                await asyncio.sleep(3600)
            return await ScriptedPolicy(self.renderer, [words["search"]]).generate(requests)

    scaled = lab.run(spec, Slow(), budget=Budget(wall_s=1.0))
    assert scaled.stop_reason is StopReason.TIMEOUT and scaled.answer.confidence == 0.0
    assert scaled.usage.model_calls == len(calls) > 0
    if spec != "glance":
        assert {len(t.turns) for t in scaled.trajectories} == {1} and scaled.usage.tool_calls == len(scaled.trajectories)


def test_time_is_kept_back_to_notice_its_end():
    from playhead.agent.scaling.purse import planned

    assert [round(planned(s), 3) for s in (0.0, 0.5, 1.0, 10.0, 60.0)] == [0.0, 0.35, 0.7, 9.7, 58.2]


def test_a_good_first_answer_survives_a_second_that_fails(lab, words):
    asked = []

    def reply(request):
        asked.append(request)
        if len(asked) > 1:
            raise ModelError("gone")
        return words["say"]("red"), 0.5

    scaled = lab.run("early-exit(tools,vote(tools,n=2),sure=0.99)", reply)
    assert scaled.answer.text == "red" and scaled.stop_reason is StopReason.ERROR and "gone" in scaled.error


def test_a_revision_that_is_no_answer_does_not_win(lab, words):
    said = iter([words["say"]("red"), "It proves nothing.", words["say"]("purple elephant"), "Still nothing."])
    scaled = lab.run("refine(tools,rounds=1)", lambda r: next(said), words=True)
    assert scaled.answer.text == "red"


def test_the_answers_tokens_are_measured_and_not_the_thoughts(renderer):
    """A thought may name the answer before it is given."""
    from playhead.agent.confidence import answer_confidence
    from playhead.core.nouns import Completion

    parts = ["<think>red or not red</think>\n<answer>", "red", "</answer>"]
    ids = [renderer.encode(part) for part in parts]
    logprobs = [math.log(p) for tokens, p in zip(ids, (0.1, 0.9, 0.1), strict=True) for _ in tokens]
    policy = SimpleNamespace(renderer=renderer)
    said = Completion(token_ids=sum(ids, ()), text="".join(parts), logprobs=tuple(logprobs))
    assert answer_confidence(said, policy, "red") == answer_confidence(said, policy) == pytest.approx(0.9, abs=1e-3)


# The purse, by itself.


def test_parts_hold_what_they_may_spend_and_give_back_the_rest():
    purse = Purse(Budget(frames=20, tool_calls=None, sampled_tokens=100, model_calls=4, wall_s=10.0), clock=lambda: 0.0)
    assert purse.affords({"frames": 6, "model_calls": 1}) == 3
    with purse.part(4, {"frames": 8}) as part:
        assert [part.left(n) for n in SUMMED] == [8, float("inf"), 25, 1]
        assert purse.left("frames") == 12 and purse.left("model_calls") == 3
        part.spend(Usage(frames=3, model_calls=1, turns=2, context_tokens=50))
        assert part.ended is StopReason.MAX_TURNS and part.plan().frames == 5
    assert purse.left("frames") == 17 and purse.usage.turns == 2
    part.close()  # settled once only
    assert purse.left("frames") == 17 and purse.short_of({"frames": 18}) is StopReason.MAX_FRAMES


def test_time_is_one_deadline():
    now = [0.0]
    purse = Purse(Budget(wall_s=10.0), clock=lambda: now[0])
    part = purse.part(3)
    now[0] = 4.0
    assert part.seconds == purse.seconds == 6.0 and 5 < part.plan().wall_s < 6
    assert purse.part(time_share=0.5).seconds == 3.0
    now[0] = 10.0
    assert part.ended is purse.ended is StopReason.TIMEOUT and part.affords({"frames": 1}) == 0


@settings(max_examples=60)
@given(st.integers(0, 50), st.lists(st.tuples(st.integers(1, 6), st.integers(0, 20), st.integers(0, 9)), max_size=12))
def test_a_purse_is_never_overdrawn(frames, steps):
    purse, open_ = Purse(Budget(frames=frames)), []
    for of, least, spend in steps:
        part = purse.part(of, {"frames": least})
        part.spend(Usage(frames=int(min(spend, part.left("frames")))))
        open_.append(part)
        if len(open_) > 2:
            open_.pop(0).close()
        assert purse.left("frames") >= 0
    for part in open_:
        part.close()
    assert purse.usage.frames <= frames


# The tally, by itself.


def test_answers_are_the_same_by_choice_by_overlap_or_by_words():
    def groups(*texts, choices=(), weights=None):
        answers = [Answer(text=t, choice=choices.index(t) if t in choices else None, confidence=0.5) for t in texts]
        return [(g.answer.text, g.members, g.answer.confidence) for g in tally(answers, weights, choices)]

    assert groups("a", "b", "b", choices=("a", "b")) == [("b", (1, 2), 0.6667), ("a", (0,), 0.3333)]
    # "c" is no answer; one ballot agrees with nobody, and keeps its own confidence.
    assert groups("c", "c", "a", choices=("a", "b")) == [("a", (2,), 0.5), ("c", (0, 1), 0.0)]
    assert groups("unknown", "unknown") == [("unknown", (0, 1), 0.0)]
    assert groups("The red star.", "red star", "blue") == [("The red star.", (0, 1), 0.6667), ("blue", (2,), 0.3333)]
    assert groups("10.0-14.0", "11.0-15.0", "11.0-14.0", "40-50")[0] == ("11.0-14.0", (0, 1, 2), 0.75)
    assert groups("a", "b", weights=[0.2, 0.6])[0] == ("b", (1,), 0.75)
    assert groups("unknown", "unknown", "red")[0][0] == "red"
    assert tally([], None, ()) == []

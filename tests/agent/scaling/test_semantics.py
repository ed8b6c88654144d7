"""What the strategies mean: which answer wins, which branch is gone down, whose confidence decides. Each test fails under one
small change of the code that every other test would let pass."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playhead.agent.policies.scripted import ScriptedPolicy
from playhead.agent.scaling.early_exit import EarlyExit
from playhead.agent.scaling.spec import parse_strategy
from playhead.agent.scaling.strategy import StrategyError
from playhead.core.budget import Budget

THREE = ("green", "red", "blue")


def times(request):
    return [f.timestamp_s for f in request.frames]


def within(request, low, high):
    return all(low <= t < high for t in times(request))


def opened(request):
    """Whether the policy goes on from words put into its mouth."""
    return request.messages[-1].role == "assistant"


def in_turn(words, *said):
    """(answer, probability), one after the other."""
    order = iter(said)
    return lambda request: (words["say"]((now := next(order))[0]), now[1])


# mcts


def branches(lab, words, spec, sure):
    """The first call of every simulation of a tree with two branches at its root; `sure`: how sure each is of what it finds."""
    roots = iter(sure)

    def reply(request):
        if request.messages[-1].role == "user":
            return words["search"].replace('"red"', f'"{next(roots)}"'), 0.5
        colour = next(c for c in sure if f'"query": "{c}"' in request.messages[-2].text)
        return words["say"](colour), sure[colour]

    scaled = lab.run(spec, reply)
    return [json.loads(t.turns[0].tool_calls[0].arguments_json)["query"] for t in scaled.trajectories]


def test_tree_search_goes_where_it_was_sure(lab, words):
    second = branches(lab, words, "mcts:n=9,explore=0", {"red": 0.01, "green": 0.9})
    assert second[:5] == ["red"] * 4 + ["green"] and set(second[5:]) == {"green"}
    first = branches(lab, words, "mcts:n=9,explore=0", {"red": 0.9, "green": 0.01})
    assert first[:5] == ["red"] * 4 + ["green"] and set(first[5:]) == {"red"}


def test_tree_search_tries_what_it_hardly_knows(lab, words):
    assert branches(lab, words, "mcts:n=8", {"red": 0.5, "green": 0.5})[5:] == ["green"] * 3
    assert set(branches(lab, words, "mcts:n=8,explore=0", {"red": 0.5, "green": 0.5})[5:]) == {"red"}


# best-of-n's judges


def test_the_judge_of_certainty_overrules_the_many(lab, words):
    scaled = lab.run("best-of-n:n=3,judge=sure", in_turn(words, ("green", 0.2), ("green", 0.2), ("red", 0.99)))
    said = [d.text for d in scaled.trace]
    assert scaled.answer.text == "red" and any("judged 0.99" in t for t in said) and any("judged 0.20" in t for t in said)


def test_the_judge_that_looks_again_has_the_tools(lab, words):
    order = iter([words["say"]("green", "10-12"), words["say"]("green", "10-12"), words["say"]("red", "30-34")])

    def reply(request):
        if within(request, 10, 12) or within(request, 30, 34):
            looks.append(request)
            return words["say"]("red"), 0.9  # whatever is shown
        return next(order)

    looks = []
    scaled = lab.run("best-of-n:n=3,judge=look", reply, words=True)
    said = [d.text for d in scaled.trace]
    assert scaled.answer.text == "red" and any("judged 0.95" in t for t in said) and any("judged 0.05" in t for t in said)
    assert len(looks) == 2 and all(r.tools for r in looks)


# zoom


def test_zoom_believes_frames_that_suffice(lab, words):
    def reply(request):
        whole, early = max(times(request)) - min(times(request)) > 31, min(times(request)) < 29
        if opened(request):
            return ("no", 0.9) if whole or early else ("yes", 0.9)
        return (words["say"]("green"), 0.8) if whole or early else (words["say"]("red"), 0.5)

    scaled = lab.run("zoom:branches=2,nodes=3", reply, words=True)
    assert scaled.answer.text == "red" and any("value 0.45: red" in d.text for d in scaled.trace)
    assert sum(opened(r) for r in lab.asked) == 3
    assert lab.run("zoom:branches=2,nodes=3", reply).answer.text == "green"  # asked of models that follow instructions only


# iterate, refine


@pytest.mark.parametrize(
    ("passes", "wins"),
    [
        ([("red", 0.2), ("green", 0.9), ("blue", 0.3)], "green"),  # the surest, where all disagree
        ([("red", 0.4), ("green", 0.6), ("red", 0.4)], "red"),  # two count more than a surer one
        ([("red", 0.2), ("green", 0.9), ("red", 0.2)], "green"),  # and two that guess do not
        ([("red", 0.2), ("blue", 0.3), ("green", 0.9)], "green"),
    ],
)
def test_passes_that_disagree_vote(lab, words, passes, wins):
    scaled = lab.run("iterate:rounds=2", in_turn(words, *passes), choices=THREE, words=True)
    assert (scaled.answer.text, scaled.why, len(lab.asked)) == (wins, "no two in a row agree", 3)


@pytest.mark.parametrize(
    ("drafts", "wins"), [(["red", "green"], "green"), (["red", "green", "purple"], "green"), (["red", "purple"], "red")]
)
def test_the_last_draft_that_answers_knows_most(lab, words, drafts, wins):
    order = iter(drafts)

    def reply(request):
        return "That is not shown." if "do not prove" in request.messages[-1].text else words["say"](next(order))

    scaled = lab.run(f"refine:rounds={len(drafts) - 1}", reply, words=True)
    assert (scaled.answer.text, scaled.why) == (wins, "never stable")


@pytest.mark.parametrize("sure", [(0.3, 0.9), (0.9, 0.3)])
def test_without_words_the_surest_draft_stands(lab, words, sure):
    scaled = lab.run("refine:rounds=1", in_turn(words, ("red", sure[0]), ("green", sure[1])))
    assert (scaled.answer.text, scaled.why) == ("red" if sure[0] > sure[1] else "green", "never stable")


def test_no_two_looks_show_the_same_stretch(lab, words):
    order = iter(["red", "green"] * 2)

    def reply(request):
        return words["zoom"] if request.messages[-1].role == "user" else words["say"](next(order), "30-34")

    scaled = lab.run("iterate:rounds=3", reply)
    calls = [json.loads(t.turns[0].tool_calls[0].arguments_json) for t in scaled.trajectories]
    assert [c["start_s"] for c in calls] == [26.0, 26.0, 24.0, 28.0]  # the first look is where the agent itself looked
    assert all(c["start_s"] <= 30 and c["end_s"] >= 34 and c["end_s"] - c["start_s"] == 12 for c in calls)


# early-exit


class Uneven(ScriptedPolicy):
    """Always says `text`: up to `<answer>` with the probability `thought` of every token, from there with `answer`."""

    def __init__(self, renderer, text, thought, answer):
        super().__init__(renderer, [text])
        self.head, self.p = text.index("<answer>"), (thought, answer)

    def _reply(self, request):
        made, decode = super()._reply(request), self.renderer.decode
        behind = [len(decode(made.token_ids[: i + 1])) > self.head for i in range(len(made.token_ids))]
        return replace(made, logprobs=tuple(math.log(self.p[b]) for b in behind))


@pytest.mark.parametrize(("thought", "answer", "asked"), [(0.3, 0.99, 2), (0.99, 0.8, 1)])
def test_the_early_exit_asks_how_sure_the_thought_was(lab, words, renderer, thought, answer, asked):
    speaker = Uneven(renderer, words["say"]("red", "", "first this and then that and so on to the end"), thought, answer)
    scaled = lab.run("early-exit(tools,tools,sure=0.9)", speaker)
    first = scaled.trajectories[0].answer.confidence
    assert first == pytest.approx(answer, abs=0.001) and (first >= 0.9) is (asked == 2)  # the other way round than it went
    assert len(scaled.trajectories) == asked and (scaled.why == "sure") is (asked == 1)


# force, widen


def test_a_longer_thought_keeps_no_frame_back(lab, words):
    def reply(request):
        return " so</think>\n<answer>green</answer>" if opened(request) else words["say"]("red")

    budget = Budget(frames=40, sampled_tokens=2000, model_calls=6)
    scaled = lab.run("force:waits=1", reply, budget=budget, words=True)
    assert len(lab.asked[0].frames) == 40 and (scaled.answer.text, scaled.usage.frames) == ("green", 40)
    scaled = lab.run("force:waits=1,tokens=900", reply, budget=replace(budget, sampled_tokens=1100), words=True)
    assert lab.asked[0].sampling.max_tokens < 550 and scaled.answer.text == "green"  # tokens it does: half, as the thoughts may


def test_widen_says_how_many_frames_were_shown(lab, words):
    def said(budget):
        never = iter(["red", "green"] * 10)
        scaled = lab.run("widen:frames=16,most=16,n=2", lambda r: words["say"](next(never)), budget=budget)
        shown = sorted(len(r.frames) for r in lab.asked)
        return shown, next(d.text for d in scaled.trace if d.by == "widen")

    shown, text = said(Budget(frames=None))
    assert shown == [16, 16] and text.startswith("16 frames: ")
    shown, text = said(Budget(frames=27))
    assert shown == [13, 14] and text.startswith("13-14 of 16 frames: ")  # an only round has all of the budget


# Specs


def test_a_number_too_long_is_one_clear_line():
    for spec in (f"vote:n={'9' * 400}", f"direct:frames={'9' * 400}", "vote:temperature=9e999", "early-exit:sure=nan"):
        with pytest.raises(StrategyError, match=" must be between ") as said:
            parse_strategy(spec)
        assert "\n" not in str(said.value) and len(str(said.value)) < 200


@pytest.mark.parametrize("spec", ["early-exit:sure=0.9999999", "vote:temperature=1e-7", "mcts:explore=99.87654321"])
def test_a_spec_keeps_every_digit(spec):
    strategy = parse_strategy(spec)
    assert parse_strategy(str(strategy)) == strategy


@given(st.floats(0, 1.01))
def test_every_float_is_read_back(sure):
    assert parse_strategy(str(EarlyExit(sure=sure))).sure == sure

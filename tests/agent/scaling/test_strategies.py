"""Each strategy on a scripted policy: what is called, when it stops, what it spends."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from playhead.agent.scaling.best_of import BestOf
from playhead.core.budget import Budget
from playhead.core.nouns import Completion, FinishReason, StopReason, Task


def times(request):
    return [f.timestamp_s for f in request.frames]


def test_one_pass(lab, words):
    say = words["say"]
    scaled = lab.run("direct", lambda r: say("red"), budget=Budget(frames=12))
    (request,) = lab.asked
    assert len(request.frames) == 12 and request.tools == () and request.messages[-1].text.endswith("(B) red")
    assert (scaled.answer.choice, scaled.answer.confidence, scaled.usage.model_calls) == (1, 0.5, 1)
    assert lab.run("direct:frames=5", lambda r: say("red")).usage.frames == 5
    lab.run("direct", lambda r: say("red"), words=True)
    assert "at once" in lab.asked[0].messages[-1].text
    lab.run("think:tokens=900", lambda r: say("red"), words=True)
    assert "step by step" in lab.asked[0].messages[-1].text and lab.asked[0].sampling.max_tokens == 900


def test_tools_is_the_agent_itself(lab, words):
    def reply(request):
        return words["search"] if request.messages[-1].role == "user" else words["say"]("red")

    scaled = lab.run("tools", reply, seed=3)
    task = Task(id="t", question="Which?", video=lab.film, choices=("green", "red"))
    plain = asyncio.run(lab.agent.arun(task, seed=3))
    assert scaled.trajectory.token_ids == plain.token_ids and scaled.chosen == scaled.trajectories[0].id
    assert (scaled.usage.tool_calls, scaled.usage.model_calls, scaled.usage.turns) == (1, 2, 2)


def test_a_glance_and_the_early_exit(lab, words):
    def reply(request):
        opened = request.messages[-1].role == "assistant"
        return ("red</answer>\n<evidence>1-2</evidence>", p) if opened else words["say"]("green")

    p = 0.99
    scaled = lab.run("early-exit", reply)
    (request,) = lab.asked
    assert request.messages[-1].text == "<think></think>\n<answer>" and request.sampling.max_tokens == 32
    assert (scaled.answer.text, scaled.why, scaled.usage.frames) == ("red", "sure", 4)
    assert scaled.answer.evidence[0].end_s == 2.0 and scaled.trajectory.answer == scaled.answer
    p = 0.6
    scaled = lab.run("early-exit:sure=0.9", reply)
    assert len(lab.asked) == 2 and scaled.answer.text == "green" and lab.asked[1].tools


def test_the_early_exit_takes_nothing_from_its_first_answer(lab, words):
    """Under a budget that pays for one plain run it is that run, however unsure."""

    def reply(request):
        return words["say"]("green") if request.messages[-1].role == "tool" else words["search"]

    plain = lab.run("tools", reply)
    tight = Budget(turns=8, frames=plain.usage.frames)
    scaled = lab.run("early-exit(tools,vote(tools,n=4),sure=1.01)", reply, budget=tight)
    assert plain.usage.frames > 4 and scaled.usage.frames == plain.usage.frames
    assert (scaled.answer.text, scaled.why) == ("green", "budget")


def test_a_vote_stops_when_it_is_decided(lab, words):
    scaled = lab.run("vote:n=8,weight=none", lambda r: words["say"]("red"))
    assert len(lab.asked) == 5 and scaled.why == "decided"  # 5 of 8 cannot be outvoted
    assert sorted(r.sampling.temperature for r in lab.asked) == [0.0, *[0.7] * 4]
    assert len({r.sampling.seed for r in lab.asked}) == 5 and scaled.answer.confidence == 1.0
    assert len({r.token_ids for r in lab.asked}) == 1  # one prompt: the engine prefills it once
    lab.run("vote:n=8,weight=none,early=no,greedy=no", lambda r: words["say"]("red"))
    assert len(lab.asked) == 8 and all(r.sampling.temperature == 0.7 for r in lab.asked)


def test_a_vote_goes_on_while_it_is_open(lab, words):
    order = iter(["red", "green", "red", "green", "green", "red", "green", "green"])
    scaled = lab.run("vote:n=8,weight=none", lambda r: words["say"](next(order)))
    assert len(lab.asked) == 8 and (scaled.answer.text, scaled.answer.confidence) == ("green", 0.625)
    assert scaled.trajectory.answer.text == "green" and len(scaled.trajectories) == 8
    assert any("3 say red" in d.text for d in scaled.trace)


def test_a_vote_weighs_by_confidence_and_passes_over_what_is_no_answer(lab, words):
    said = [("green", 0.2), ("green", 0.2), ("red", 0.9), ("purple", 1.0), ("purple", 1.0)]

    def run(weight):
        order = iter(said)
        return lab.run(f"vote:n=5,weight={weight}", lambda r: (words["say"]((s := next(order))[0]), s[1]))

    assert (run("none").answer.text, run("confidence").answer.text) == ("green", "red")


def test_intervals_vote_by_overlap(lab, words):
    order = iter(["30.0-34.0", "50.0-52.0", "29.0-34.0", "30.5-35.0"])
    scaled = lab.run("vote:n=4,weight=none,early=no", lambda r: words["say"](next(order)), choices=())
    assert scaled.answer.text == "30.0-34.0" and scaled.answer.confidence == 0.75


def test_best_of_n_asks_the_judge_once_for_each_answer(lab, words):
    class Contrary:
        name = "contrary"

        async def score(self, bench, purse, seed, candidate):
            judged.append(candidate.answer.text)
            return 1.0 if candidate.answer.text == "green" else 0.0

    judged: list[str] = []
    order = iter(["red", "red", "red", "green"])
    scaled = lab.run(BestOf(external=Contrary()), lambda r: words["say"](next(order)))
    assert sorted(judged) == ["green", "red"] and scaled.answer.text == "green" and scaled.why == "judged"
    judged.clear()
    assert lab.run(BestOf(external=Contrary()), lambda r: words["say"]("red")).answer.text == "red"
    assert judged == []  # all say the same: nothing to judge


def test_the_evidence_check_sees_the_cited_clips_only(lab, words):
    order = iter([words["say"]("red", "30-34"), words["say"]("green", "10-12"), words["say"]("green", "10-12")])

    def reply(request):
        if request.tools:
            return next(order)
        return words["say"]("red"), 0.9  # whatever is shown

    scaled = lab.run("best-of-n:n=3", reply)
    checks = [times(r) for r in lab.asked if not r.tools]
    assert len(checks) == 2 and all(10 <= t < 12 or 30 <= t < 34 for ts in checks for t in ts)
    assert scaled.answer.text == "red"


def test_the_policy_judges_by_its_yes(lab, words):
    order = iter(["red", "green", "green"])

    def reply(request):
        if request.messages[-1].role == "assistant":
            assert request.sampling.max_tokens == 4
            return ("yes", 0.9) if "answer: red" in request.messages[0].text else ("no", 0.9)
        return words["say"](next(order))

    scaled = lab.run("best-of-n:n=3,judge=yes-no", reply)
    assert scaled.answer.text == "red" and any("judged 0.90" in d.text for d in scaled.trace)
    assert any("judged 0.10" in d.text for d in scaled.trace)


def test_widen_doubles_the_frames_until_samples_agree(lab, words):
    split = itertools.cycle(["red", "green"])

    def reply(request):
        return words["say"](next(split) if len(request.frames) < 16 else "red")

    scaled = lab.run("widen:frames=4,n=4", reply)
    assert [len(r.frames) for r in lab.asked] == [4] * 4 + [8] * 4 + [16] * 4
    assert (scaled.answer.text, scaled.why) == ("red", "agreed")
    never = iter(["red", "green"] * 10)
    scaled = lab.run("widen:frames=4,most=8,n=2", lambda r: words["say"](next(never)))
    assert [len(r.frames) for r in lab.asked] == [4, 4, 8, 8] and scaled.why == "never agreed"


def test_zoom_splits_where_it_is_surest(lab, words):
    def reply(request):
        inside = sum(30 <= t < 34 for t in times(request)) / len(request.frames)
        return words["say"]("red", ""), 0.1 + 0.89 * inside

    scaled = lab.run("zoom:branches=2,nodes=20,shortest=3,sure=0.9", reply)
    (cited,) = scaled.answer.evidence
    assert scaled.why == "sure" and cited.start_s >= 29 and cited.end_s <= 35
    assert len(lab.asked) <= 13 and all(len(r.frames) == 8 for r in lab.asked)
    assert len(lab.run("zoom:nodes=3", lambda r: (words["say"]("red"), 0.1)).trajectories) == 3


def test_tree_search_branches_in_the_middle_of_episodes(lab, words):
    def reply(request):
        if request.messages[-1].role == "user":
            return words["search"], 0.9
        if sum(m.role == "tool" for m in request.messages) == 1:
            return words["zoom"], 0.9
        return words["say"](["red", "green"][request.sampling.seed % 2]), 0.9

    scaled = lab.run("mcts:n=6", reply)
    first, *others = scaled.trajectories
    branched = [t for t in others if t.usage.turns < len(t.turns)]
    assert branched and all(t.turns[0] == first.turns[0] for t in branched)
    assert scaled.usage.model_calls < 3 * len(scaled.trajectories)
    alike = lab.run("mcts:n=6", lambda r: (words["say"]("red"), 0.9))
    assert alike.why == "decided" and len(alike.trajectories) == 4


def test_refine_in_words(lab, words):
    critic = iter(["It may be green there.", "OK."])

    def reply(request):
        text = request.messages[-1].text
        if "do not prove" in text:
            assert 30 <= times(request)[0] < 34 and len(request.frames) == 8
            return next(critic)
        return words["say"]("green" if "may be green" in text else "red")

    scaled = lab.run("refine", reply, words=True)
    assert (scaled.answer.text, scaled.why, len(lab.asked)) == ("green", "no objection", 4)
    assert "earlier answer was: red" in lab.asked[2].messages[-1].text


def test_refine_and_iterate_by_looking_again(lab, words):
    def reply(request):
        zooms = [m for m in request.messages if m.role == "assistant" and "temporal_zoom" in m.text]
        if request.messages[-1].role == "user":
            return words["zoom"]
        return words["say"]("red" if '"start_s": 26.0' in zooms[0].text else "green", "30.0-34.0")

    for spec in ("iterate", "refine"):
        scaled = lab.run(spec, reply, choices=("green", "red"))
        again = scaled.trajectories[1]
        call = again.turns[0].tool_calls[0].arguments_json
        assert again.turns[0].completion.forced and '"start_s": 26.0' in call and '"end_s": 38.0' in call
        assert again.loss_mask.count(1) == len(again.turns[1].completion.token_ids)
        assert again.usage.turns == 1 and len(again.turns) == 2
    assert scaled.stop_reason is StopReason.ANSWERED
    agreeing = lab.run("iterate", lambda r: words["zoom"] if r.messages[-1].role == "user" else words["say"]("red"))
    assert (agreeing.why, len(agreeing.trajectories)) == ("two passes agree", 2)
    nothing = lab.run("iterate", lambda r: words["say"]("red", ""))
    never_zoomed = lab.run("iterate", lambda r: words["say"]("red"))
    assert (never_zoomed.why, len(never_zoomed.trajectories)) == ("nothing to look at", 1)
    wordy = lab.run("iterate", lambda r: words["say"]("red"), words=True)
    assert wordy.why == "two passes agree" and all(30 <= t < 34 for t in times(lab.asked[1]))
    assert (nothing.why, len(nothing.trajectories)) == ("nothing to look at", 1)


def test_map_reduce(lab, words):
    def reply(request):
        text = request.messages[-1].text
        if "Notes on its parts" in text:
            return words["say"]("red", "30-34") if readable else "hm"
        return words["say"]("red", ""), 0.9 if any(30 <= t < 34 for t in times(request)) else 0.2

    readable = True
    scaled = lab.run("map-reduce:segments=6,frames=5", reply, words=True)
    spans = sorted((min(times(r)), max(times(r))) for r in lab.asked[:6])
    assert len(lab.asked) == 7 and scaled.why == "reduced" and scaled.answer.choice == 1
    assert all(10 * i <= a and b < 10 * (i + 1) for i, (a, b) in enumerate(spans))
    assert lab.asked[6].messages[0].text.count("red (0.") == 6 and lab.asked[6].frames == ()
    readable = False
    assert lab.run("map-reduce:segments=6", reply, words=True).why == "segments voted"
    scaled = lab.run("map-reduce:segments=6", reply)
    assert scaled.why == "segments voted" and len(lab.asked) == 6
    (cited,) = scaled.answer.evidence
    assert cited.start_s <= 30 < cited.end_s
    captions = lab.run("map-reduce:segments=2,say=captions", lambda r: "a wall", words=True)
    assert "a wall" in lab.asked[-1].messages[0].text and captions.answer is not None


def test_budget_forcing(lab, words, renderer):
    def reply(request):
        said = request.messages[-1]
        return " it is green</think>\n<answer>green</answer>" if said.role == "assistant" else words["say"]("red")

    scaled = lab.run("force:waits=2", reply, words=True)
    assert (scaled.answer.text, len(lab.asked)) == ("green", 3)
    waiting = renderer.decode(lab.asked[1].token_ids)
    first = lab.asked[0].token_ids
    assert waiting.endswith("<think>so\nWait") and lab.asked[1].token_ids[: len(first)] == first
    assert "Wait it is green\nWait" in renderer.decode(lab.asked[2].token_ids)
    stays = lab.run("force", lambda r: " hm</think>" if r.messages[-1].role == "assistant" else words["say"]("red"), words=True)
    assert (stays.answer.text, stays.why) == ("red", "no longer thought")
    endless = lambda r: "red</answer>" if r.messages[-1].role == "assistant" else "<think>" + "and " * 300  # noqa: E731
    cut = lab.run("force:waits=0,most=40", endless)
    assert cut.answer.text == "red" and lab.asked[0].sampling.max_tokens == 40
    assert lab.asked[1].messages[-1].text.endswith("<answer>")


def test_strategies_compose(lab, words):
    scaled = lab.run("vote(refine(tools,rounds=1),n=3,weight=none)", lambda r: words["say"]("red"))
    assert scaled.strategy == "vote(refine(tools,rounds=1),n=3,weight=none)" and scaled.answer.text == "red"
    assert len(scaled.trajectories) == 4  # two votes decide three; each looks twice


def test_what_fails_is_on_the_result(lab, words, tmp_path):
    class Broken:
        name, exact, renderer = "broken", True, lab.agent.policy.renderer

        async def generate(self, requests):
            return [Completion(token_ids=(), text="out of memory", finish_reason=FinishReason.ERROR) for _ in requests]

    for spec in ("tools", "vote:n=3", "glance", "mcts"):
        scaled = lab.run(spec, Broken())
        assert scaled.stop_reason is StopReason.ERROR and scaled.answer is None and "out of memory" in scaled.error
    flaky = iter([*[words["say"]("red")] * 2, RuntimeError("gone"), *[words["say"]("red")] * 9])

    def reply(request):
        said = next(flaky)
        if isinstance(said, Exception):
            raise said
        return said

    assert lab.run("vote:n=5,early=no", reply).answer.text == "red"  # one bad run is data
    film, lab.film = lab.film, str(tmp_path / "none.mp4")
    try:
        missing = lab.run("vote", lambda r: words["say"]("red"))
    finally:
        lab.film = film
    assert missing.stop_reason is StopReason.ERROR and "none.mp4" in missing.error


def test_the_door(lab, words, film):
    lab.run("tools", lambda r: words["say"]("red"))  # its speaker stays
    result = lab.agent.ask(film, "Which?", ("green", "red"), strategy="vote:n=3")
    assert result.answer.text == "red" and result.scaled.usage == result.usage and result.scaled.why == "all voted"
    assert result.trajectory.id == result.scaled.chosen
    with pytest.raises(Exception, match="no strategy is called"):
        lab.agent.ask(film, "Which?", strategy="voting")

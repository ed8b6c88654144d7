"""The agent on a real video with real tools and a scripted policy: what happens in which order, and what is recorded of it."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from playhead.agent.embedded import EMBEDDED_PROFILE
from playhead.agent.events import Answered, Called, Finished, Forced, Indexing, Misread, Observed, Skimmed, Thought
from playhead.agent.policies.scripted import ScriptedPolicy
from playhead.agent.video_agent import VideoAgent
from playhead.core.budget import Budget
from playhead.core.errors import ModelError, VideoError
from playhead.core.nouns import Clip, Completion, FinishReason, StopReason, Task
from playhead.core.trajectory import from_json, to_json
from playhead.tools.contract import Tool, ToolContext, ToolResult

SEARCH = '<think>Where?</think>\n<tool_call>\n{"name": "search_clips", "arguments": {"query": "red", "k": 2}}\n</tool_call>'
ZOOM = '<think>Closer.</think>\n<tool_call>\n{"name": "temporal_zoom", "arguments": {"start_s": 28, "end_s": 36}}\n</tool_call>'
BOTH = ZOOM + '\n<tool_call>\n{"name": "caption_frames", "arguments": {"times_s": [31.0, 2.0]}}\n</tool_call>'
ANSWER = "<think>There.</think>\n<answer>red</answer>\n<evidence>30.0-34.0; 90-80</evidence>"


@pytest.fixture
def make(renderer, encoder, tmp_path):
    def agent(script, **options):
        policy = script if hasattr(script, "generate") else ScriptedPolicy(renderer, script)
        return VideoAgent(policy, encoder=encoder, home=tmp_path, **{"profile": EMBEDDED_PROFILE, **options})

    return agent


def run(agent, film, question="Which colour?", **options):
    return asyncio.run(agent.arun(Task(id="t", question=question, video=str(film), choices=("green", "red")), **options))


def test_an_episode_from_question_to_evidence(make, film):
    agent = make([SEARCH, BOTH, ANSWER])

    async def collect():
        return [e async for e in agent.astream(film, "Which colour?", ("green", "red"))]

    events = asyncio.run(collect())
    kinds = [type(e) for e in events if not isinstance(e, Indexing)]
    assert kinds == [
        Skimmed, Thought, Called, Observed, Thought, Called, Called, Observed, Observed, Thought, Answered, Finished,
    ]  # fmt: skip
    assert any(isinstance(e, Indexing) for e in events)
    result, trajectory = events[-1].result, events[-1].trajectory
    assert (result.answer.text, result.answer.choice) == ("red", 1)
    (cited,) = result.answer.evidence
    assert (cited.start_s, cited.end_s) == (30.0, 34.0)
    assert result.stop_reason is StopReason.ANSWERED and "made-up world" in result.warnings[0]
    red = Clip(video_id=cited.video_id, start_s=30.0, end_s=34.0)
    assert any(c.overlap_s(red) == 4.0 for c in trajectory.evidence_seen)
    assert len(events[0].frames if isinstance(events[0], Skimmed) else trajectory.turns[0].context_frames) == 4
    captions = trajectory.turns[1].observations[1]
    assert captions.error is None and captions.text.startswith("31.0: ") and captions.frames == ()
    usage = result.usage
    assert (usage.turns, usage.tool_calls) == (3, 3)
    assert usage.frames == len(trajectory.frames) + 2  # captioned frames were shown too
    trajectory.check()
    assert from_json(to_json(trajectory)) == trajectory


def test_the_trajectory_is_what_the_policy_saw(make, film, renderer):
    agent = make([SEARCH, "no call and no answer", ZOOM, ANSWER])
    trajectory = run(agent, film)
    requests = agent.policy.requests
    seen: tuple[int, ...] = ()
    for turn, request in zip(trajectory.turns, requests, strict=True):
        assert request.token_ids == seen + turn.context_ids
        seen = request.token_ids + turn.completion.token_ids
        pads = turn.context_ids.count(renderer.image_token_id)
        assert pads == sum(renderer.frame_tokens(f) for f in turn.context_frames)
    assert trajectory.token_ids == seen
    assert trajectory.frames == requests[-1].frames
    assert trajectory.messages[:-1] == requests[-1].messages
    assert renderer.image_token_id not in [t for t, m in zip(seen, trajectory.loss_mask, strict=True) if m]
    assert [s for r in requests for s in [r.sampling.seed]] == list(dict.fromkeys(r.sampling.seed for r in requests))
    assert trajectory.stop_reason is StopReason.ANSWERED
    assert "could not be read" in trajectory.turns[2].context_messages[0].text


def test_top_p_is_checked_at_once_and_written_down(make, film):
    with pytest.raises(ValueError, match="top_p must be above 0"):
        make([ANSWER], top_p=0)
    assert run(make([ANSWER], top_p=0.5), film).top_p == 0.5


def test_an_unreadable_model_gets_one_reminder_and_then_the_opening_of_an_answer(make, film):
    def reply(request):
        return "red</answer>\n<evidence>30-34</evidence>" if request.messages[-1].role == "assistant" else "hmm"

    agent = make(reply)

    async def collect():
        return [e async for e in agent.astream(film, "Which?", ("green", "red"))]

    events = asyncio.run(collect())
    trajectory = events[-1].trajectory
    assert sum(isinstance(e, Misread) for e in events) == 2 and any(isinstance(e, Forced) for e in events)
    assert trajectory.stop_reason is StopReason.PARSE_ERROR
    assert trajectory.answer.choice == 1 and trajectory.answer.evidence[0].start_s == 30.0
    assert agent.policy.renderer.decode(trajectory.turns[-1].context_ids).endswith("Time is up.</think>\n<answer>")
    assert sum(trajectory.loss_mask) == sum(len(t.completion.token_ids) for t in trajectory.turns)


def test_calls_of_one_turn_run_at_the_same_time_and_without_tools_nothing_is_indexed(make, film, tmp_path):
    barrier = asyncio.Barrier(2)

    async def meet(ctx: ToolContext, name: str) -> ToolResult:
        """Wait for the other one.

        Args:
            name: anything.
        """
        await barrier.wait()
        return ToolResult(content=(f"met {name}",))

    calls = "".join(f'<tool_call>{{"name": "meet", "arguments": {{"name": "{n}"}}}}</tool_call>' for n in "ab")
    trajectory = run(make([calls, ANSWER], tools=[Tool(meet)]), film)
    assert [o.text for o in trajectory.observations] == ["met a", "met b"]
    assert run(make([ANSWER], tools=(), skim_frames=16), film).usage.frames == 16
    assert not (tmp_path / "index").exists()


def test_failures_become_data_and_the_door_raises(make, film, tmp_path):
    class Broken:
        name, exact = "broken", True

        def __init__(self, renderer, error):
            self.renderer, self.error = renderer, error

        async def generate(self, requests):
            if isinstance(self.error, Exception):
                raise self.error
            return [Completion(token_ids=(), text=self.error, finish_reason=FinishReason.ERROR) for _ in requests]

    renderer = make([ANSWER]).policy.renderer
    for error in (RuntimeError("out of memory\nand more"), "server gone"):
        agent = make(Broken(renderer, error))
        trajectory = run(agent, film)
        assert trajectory.stop_reason is StopReason.ERROR and trajectory.answer is None
        assert str(error).splitlines()[0] in trajectory.error and "\n" not in trajectory.error
        with pytest.raises(ModelError, match=str(error).splitlines()[0]):
            agent.ask(film, "Which?")

    def broken(ctx: ToolContext) -> ToolResult:
        """Break."""
        raise OSError("disk gone")

    trajectory = run(make(['<tool_call>{"name": "broken"}</tool_call>'], tools=[Tool(broken)]), film)
    assert trajectory.stop_reason is StopReason.ERROR and "disk gone" in trajectory.error
    assert len(trajectory.turns) == 1
    agent = make([ANSWER])
    missing = run(agent, tmp_path / "none.mp4")
    assert missing.stop_reason is StopReason.ERROR and "none.mp4" in missing.error
    with pytest.raises(VideoError):
        agent.ask(tmp_path / "none.mp4", "Which?")
    assert to_json(missing)


def test_ask_works_inside_a_running_loop(make, film):
    async def notebook():
        return make([ANSWER], tools=()).ask(film, "Which?", ["green", "red"])

    assert asyncio.run(notebook()).answer.choice == 1


def test_many_episodes_at_once_do_not_mix(make, film, renderer):
    def reply(request):
        if request.messages[-1].role == "user":
            return SEARCH
        return f"<answer>{request.messages[0].text.split()[-1]}</answer>"

    agent = make(reply)

    async def all_of():
        tasks = [Task(id=str(i), question=f"Say n{i}", video=str(film)) for i in range(6)]
        return await asyncio.gather(*(agent.arun(t, seed=i) for i, t in enumerate(tasks)))

    trajectories = asyncio.run(all_of())
    assert [t.answer.text for t in trajectories] == [f"n{i}" for i in range(6)]
    assert len({t.id for t in trajectories}) == 6 and [t.seed for t in trajectories] == list(range(6))


def test_models_that_cannot_be_had_are_refused_at_the_door(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="which model of the server"):
        VideoAgent("http://localhost:8000/v1", home=tmp_path)
    with pytest.raises(ModelError, match="no model there"):
        VideoAgent(str(tmp_path / "none"), home=tmp_path)
    monkeypatch.setattr("playhead.agent.opening.checkpoint_dir", lambda: tmp_path / "vlm")
    with pytest.raises(ModelError, match="make model"):
        VideoAgent(home=tmp_path)


def test_a_checkpoint_folder_answers(checkpoint, film, encoder, tmp_path):
    """Random weights: what is said means nothing, but every part runs and every limit holds."""
    budget = Budget(turns=3, sampled_tokens=200, context_tokens=1500)
    agent = VideoAgent(str(checkpoint), encoder=encoder, home=tmp_path, budget=budget, temperature=1.0, seed=4)
    profile = dataclasses.replace(agent.profile, system="")
    agent.profile = profile
    result = agent.ask(film, "Which colour?")
    assert result.usage.turns <= 3 and result.usage.sampled_tokens <= 200 and result.usage.reused_tokens > 0
    assert all(len(t.completion.logprobs) == len(t.completion.token_ids) for t in result.trajectory.turns)
    again = agent.ask(film, "Which colour?")
    assert again.trajectory.token_ids == result.trajectory.token_ids

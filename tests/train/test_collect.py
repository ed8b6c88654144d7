"""Collecting: the oracle and any policy through one door; killed runs go on; what comes out is scored and without doubles."""

import asyncio
import json

import pytest
from playhead.agent.embedded import EMBEDDED_PROFILE
from playhead.agent.policies.scripted import ScriptedPolicy
from playhead.agent.video_agent import VideoAgent
from playhead.core.errors import DataError
from playhead.core.frames import FrameStore
from playhead.core.nouns import Answer
from playhead.core.tasks import read_tasks
from playhead.core.trajectory import read_trajectories
from playhead.train.data.collect import Setup, collect, jobs_of, manner_of
from playhead.train.data.filters import parse_filters
from playhead.train.data.oracle_policy import OraclePolicy
from playhead.train.data.sets import TrajectorySet, Validator
from playhead.train.data.verifier import EvidenceVerifier, retrieved
from playhead.train.samples import sample_of


@pytest.fixture(scope="module")
def tasks(world):
    return read_tasks(world)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def scripted(renderer, home):
    """An agent that answers as the script says; without tools it needs no index."""

    def make(script, tools=()):
        return VideoAgent(ScriptedPolicy(renderer, script), profile=EMBEDDED_PROFILE, home=home, skim_frames=2, tools=tools)

    return make


def run(tasks, out, setup, filters="", **how):
    return asyncio.run(collect(tasks, out, setup, filters=parse_filters(filters), **how))


@pytest.mark.timeout(300)  # the film is made and indexed here
def test_the_oracle_collects_like_any_model(tasks, home, renderer, tmp_path, monkeypatch):
    monkeypatch.setenv("PLAYHEAD_HOME", str(home))
    setup = Setup(model="oracle", slips=1.0)
    chosen = [t for t in tasks if t.kind in ("when", "motion")]
    done = run(chosen, tmp_path / "set", setup, "correct,grounded,format")
    assert done.kept == 2 and done.first_error is None
    assert [(d.name, d.dropped) for d in done.drops] == [(n, 0) for n in ("failed", "twice", "correct", "grounded", "format")]
    source = TrajectorySet(tmp_path / "set")
    for trajectory in Validator(source).read():
        assert trajectory.exact and trajectory.reward_parts and trajectory.reward_parts["answer"] > 0.5
        assert trajectory.group_id == trajectory.task.id
        assert len(retrieved(trajectory)) > 0
    card = json.loads((tmp_path / "set" / "card.json").read_text())
    assert card["kinds"] == {"motion": 1, "when": 1} and card["tools"]["search_clips"] == 2
    assert "Apache-2.0" in card["licences"]["world"]
    assert [t.name for t in source.tools()][:2] == ["search_clips", "temporal_zoom"]


def test_slips_are_seen_but_not_trained_on(tasks, renderer, tmp_path):
    """Where the oracle goes to a wrong hit, its turn is forced: 0 in the mask."""
    from playhead.core.clip import Clip
    from playhead.core.nouns import Frame, Message
    from playhead.core.policy import GenerateRequest, Sampling
    from playhead.tools.format import hits_content
    from playhead.world.script import make_scene

    task = next(t for t in tasks if t.kind == "motion")
    scene = make_scene(int(task.meta["seed"]), float(task.meta["minutes"]))
    gold = task.evidence[0]
    times = [gold.centre_s, next(e.start_s + 1 for e in scene.events if abs(e.start_s - gold.start_s) > 20)]

    class Hit:
        def __init__(self, t):
            self.clip = Clip(video_id=gold.video_id, start_s=max(0.0, t - 6), end_s=t + 6)

    frames = [Frame(video_id=gold.video_id, timestamp_s=t, sha256="0", width=64, height=64) for t in times]
    seen = Message(role="tool", content=hits_content("x", [Hit(t) for t in times], frames))
    asked = Message(role="user", content=(task.question,))
    request = GenerateRequest(
        session="run", token_ids=(), frames=(), messages=(asked, seen), sampling=Sampling(), tools=(object(),)
    )
    replies = {}
    for slips in (0.0, 1.0):
        policy = OraclePolicy(renderer, FrameStore(tmp_path), {"run": task}, slips)
        (replies[slips],) = asyncio.run(policy.generate([request]))
    assert replies[1.0].forced and not replies[0.0].forced
    assert replies[1.0].text != replies[0.0].text


def test_the_oracle_refuses_tasks_it_does_not_know(tasks, renderer, tmp_path):
    from dataclasses import replace

    held_out = replace(tasks[0], meta={**tasks[0].meta, "seed": "7000000"})
    for task, says in ((replace(tasks[0], meta={}), "not of the world"), (held_out, "held out")):
        with pytest.raises(DataError, match=says):
            run([task], tmp_path / says, Setup(model="oracle"))


def test_a_killed_run_goes_on_to_the_same_set(tasks, scripted, tmp_path):
    """Cut anywhere, also in the middle of a line: what is missing is played, and the set is the same."""
    tasks = tasks[:4]
    setup, asked = Setup(model="scripted", n=2), []

    def say(request):
        asked.append(request.session)
        return f"<think></think>\n<answer>{len(request.messages)} {request.sampling.seed}</answer>"

    class Killed(Exception):
        pass

    def kill_at(count):
        def check(trajectory, done, total):
            if done == count:
                raise Killed

        return check

    out = tmp_path / "cut"
    with pytest.raises(Killed):
        run(tasks, out, setup, agent=scripted(say), workers=3, on_episode=kill_at(4))
    assert not (out / "trajectories.jsonl").exists()
    log = out / "episodes.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[:-40])  # the last line was being written
    written = log.read_bytes().count(b"\n")
    asked.clear()
    done = run(tasks, out, setup, agent=scripted(say), workers=3)
    assert len(asked) == 2 * len(tasks) - written
    undisturbed = run(tasks, tmp_path / "calm", setup, agent=scripted(say))
    assert done.kept == undisturbed.kept == 2 * len(tasks)
    calm, cut = (list(read_trajectories(d.path)) for d in (undisturbed, done))
    assert [(t.id, t.token_ids, t.frames, t.reward_parts) for t in calm] == [
        (t.id, t.token_ids, t.frames, t.reward_parts) for t in cut
    ]
    asked.clear()
    again = run(tasks, out, setup, "format", agent=scripted(say))
    assert not asked and again.kept == done.kept  # filtering again plays nothing again
    for trajectory in cut:  # frames were copied out of the agent's own store
        sample_of(trajectory, scripted(say).policy.renderer, scripted(say).policy.renderer.image_token_id)
        FrameStore(out / "frames").pixels(trajectory.frames[0])


def test_doubles_and_failures_are_counted_and_failures_tried_again(tasks, scripted, tmp_path):
    broken = True

    def say(request):
        if broken and request.session.startswith(tasks[0].id + "."):
            raise RuntimeError("out of order")
        return "<think></think>\n<answer>left</answer>"

    setup = Setup(model="scripted", n=3)
    done = run(tasks[:2], tmp_path, setup, agent=scripted(say))
    assert {d.name: (d.seen, d.dropped) for d in done.drops} == {"failed": (6, 3), "twice": (3, 2)}
    assert done.kept == 1 and "out of order" in (done.first_error or "")
    broken = False
    done = run(tasks[:2], tmp_path, setup, agent=scripted(say))
    assert {d.name: (d.seen, d.dropped) for d in done.drops} == {"failed": (6, 0), "twice": (6, 4)}
    assert "| failed | 6 | 0 | 6 |" in (tmp_path / "card.md").read_text()


def test_a_folder_holds_one_set(tasks, scripted, tmp_path):
    agent = scripted(["<think></think>\n<answer>x</answer>"])
    run(tasks[:1], tmp_path, Setup(model="scripted"), agent=agent)
    with pytest.raises(DataError, match="seed = 0, this one has 5"):
        run(tasks[:1], tmp_path, Setup(model="scripted", seed=5), agent=agent)
    from dataclasses import replace

    with pytest.raises(DataError, match="has changed since"):
        run([replace(tasks[0], question="Another?")], tmp_path, Setup(model="scripted"), agent=agent)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "trajectories.jsonl").write_text("")
    with pytest.raises(DataError, match="not collected here"):
        run(tasks[:1], tmp_path / "other", Setup(model="scripted"), agent=agent)


def test_another_film_of_the_same_name_is_refused(tasks, scripted, tmp_path):
    from dataclasses import replace

    gold = replace(tasks[0].evidence[0], video_id="another")
    with pytest.raises(DataError, match="not the film"):
        run([replace(tasks[0], evidence=(gold,))], tmp_path, Setup(model="scripted"), agent=scripted(["<answer>x</answer>"]))


def test_strategies_are_resolved_in_one_place(tasks):
    assert manner_of(Setup(), tasks[0]).tools
    direct = manner_of(Setup(strategy="direct", frames=16), tasks[0])
    assert not direct.tools and direct.skim_frames == 16
    mixed = [manner_of(Setup(direct_share=0.5), t) for t in tasks * 3]
    assert mixed[: len(tasks)] == mixed[len(tasks) : 2 * len(tasks)]  # a task's manner is its own
    assert all(m.skim_frames in (8, 32, 64) for m in mixed if not m.tools)
    jobs = jobs_of(tasks[:2], Setup(n=2, seed=7))
    assert [(j.id, j.seed) for j in jobs] == [(f"{t.id}.{i}", 7 + i) for t in tasks[:2] for i in range(2)]
    for bad in ({"strategy": "hope"}, {"strategy": "direct"}, {"frames": 8}, {"n": 0}, {"slips": 0.5}, {"direct_share": 2.0}):
        with pytest.raises(DataError):
            Setup(**bad)


def test_a_verifier_answers_from_what_was_retrieved_alone(make_task, make_trajectory, renderer):
    trajectory = make_trajectory(make_task())
    asked = []

    def say(request):
        asked.append(request)
        return "<think></think>\n<answer>left</answer>"

    verifier = EvidenceVerifier(policy=ScriptedPolicy(renderer, say), profile=EMBEDDED_PROFILE)
    assert asyncio.run(verifier(trajectory)) == Answer(text="left", choice=0)
    (request,) = asked
    assert not request.tools and [f.timestamp_s for f in request.frames] == [100.0, 102.0, 104.0]  # none of the first look
    assert request.messages[-1].text.startswith("Video of 1200.0 seconds.\n<100.0 seconds>")
    blind = make_trajectory(make_task(), "left")
    from dataclasses import replace

    nothing = replace(blind, turns=tuple(replace(t, observations=()) for t in blind.turns))
    assert asyncio.run(verifier(nothing)) is None


def test_the_filter_verified_asks_once_and_remembers(tasks, scripted, tmp_path):
    from playhead.train.data.verifier import verdicts

    asked = []

    def say(request):
        asked.append(request.session)
        return "<think></think>\n<answer>left</answer>"

    agent = scripted(say)
    done = run(tasks[:2], tmp_path, Setup(model="scripted"), "verified", agent=agent)
    assert done.kept == 0 and done.drops[-1].dropped == 2  # nothing was retrieved, so nothing is verified
    assert (tmp_path / "verdicts.jsonl").read_text().count("\n") == 2
    assert asyncio.run(verdicts(EvidenceVerifier(policy=agent.policy, profile=agent.profile), [])) == {}

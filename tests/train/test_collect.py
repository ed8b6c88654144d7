"""Collecting: the oracle and any policy through one door; killed runs go on; what comes out is scored and without doubles."""

import asyncio
import json

import pytest
from playhead.agent.embedded import EMBEDDED_PROFILE
from playhead.agent.policies.scripted import ScriptedPolicy
from playhead.agent.scaling.strategy import Scaled
from playhead.agent.video_agent import VideoAgent
from playhead.cli import run as command
from playhead.core.budget import Budget, Usage
from playhead.core.errors import DataError, PlayheadError
from playhead.core.frames import FrameStore
from playhead.core.nouns import Answer, StopReason
from playhead.core.tasks import read_tasks
from playhead.core.trajectory import read_trajectories
from playhead.train.data.collect import collect
from playhead.train.data.filters import parse_filters
from playhead.train.data.jobs import Setup, jobs_of
from playhead.train.data.oracle_policy import OraclePolicy
from playhead.train.data.play import episodes_of
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


def test_a_thorough_oracle_looks_at_more_and_answers_the_same(tasks, home, tmp_path, monkeypatch):
    """Up to three wrong hits, drawn for each task; every turn of it is trained on."""
    monkeypatch.setenv("PLAYHEAD_HOME", str(home))
    done = {checks: run(tasks, tmp_path / str(checks), Setup(model="oracle", checks=checks), "correct") for checks in (0, 3)}
    plain, thorough = ({t.task.id: t for t in read_trajectories(d.path)} for d in done.values())
    assert set(thorough) == set(plain) == {t.id for t in tasks}
    more = [thorough[i].usage.tool_calls - plain[i].usage.tool_calls for i in plain]
    assert min(more) >= 0 and max(more) <= 3 and sum(more) >= 3, more
    for task_id, trajectory in thorough.items():
        assert trajectory.answer.text == plain[task_id].answer.text
        assert trajectory.answer.evidence == plain[task_id].answer.evidence
        assert not any(turn.completion.forced for turn in trajectory.turns)
    with pytest.raises(DataError, match="set"):
        run(tasks, tmp_path / "3", Setup(model="oracle", checks=1), "correct")


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
        def check(episodes, done, total):
            if done == count:
                raise Killed

        return check

    out = tmp_path / "cut"
    with pytest.raises(Killed):
        run(tasks, out, setup, agent=scripted(say), workers=3, on_run=kill_at(4))
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


def test_a_run_is_a_strategy_on_a_task(tasks):
    jobs = jobs_of(tasks[:2], Setup(n=2, seed=7))
    assert [(j.id, j.seed) for j in jobs] == [(f"{t.id}.{i}", 7 + i) for t in tasks[:2] for i in range(2)]
    assert {str(j.strategy) for j in jobs} == {"tools"}
    spec = "vote(direct(frames=4),n=3)"
    said = {"direct": "direct(frames=16)", spec: spec}
    for strategy, frames in (("direct", 16), (spec, None)):
        assert str(jobs_of(tasks[:1], Setup(strategy=strategy, frames=frames))[0].strategy) == said[strategy]
    mixed = [str(j.strategy) for j in jobs_of(tasks * 3, Setup(strategy=spec, direct_share=0.5))]
    assert mixed[: len(tasks)] == mixed[len(tasks) : 2 * len(tasks)]  # how a task is asked is its own
    assert {spec} < set(mixed) <= {spec, *(f"direct(frames={n})" for n in (8, 32, 64))}
    assert Setup(strategy="vote:n=4").identity == Setup(strategy="vote(n=4)").identity != Setup(strategy="vote:n=5").identity


@pytest.mark.parametrize(
    "bad",
    [
        {"frames": 8},
        {"n": 0},
        {"slips": 0.5},
        {"checks": 1},
        {"model": "oracle", "checks": -1},
        {"direct_share": 2.0},
        {"limits": {"turns": 0}},
        {"strategy": "hope"},
        {"model": "http://u:hush@h:1/v1#m"},  # before a manifest keeps it
    ],
)
def test_what_makes_no_sense_is_refused_at_once(bad):
    with pytest.raises(PlayheadError) as refused:
        Setup(**bad)
    assert "\n" not in str(refused.value) and "hush" not in str(refused.value)


@pytest.mark.parametrize(("spec", "says"), [("hope", "no strategy is called 'hope'"), ("vote(tools,n=3", "closing bracket")])
def test_a_bad_spec_is_one_clear_line(spec, says, tmp_path, capsys):
    assert command(["collect", "--data", str(tmp_path), "--strategy", spec, "--out", str(tmp_path / "set")]) == 2
    said = capsys.readouterr().err.strip()
    assert says in said and "\n" not in said and not (tmp_path / "set").exists()


def said_by(asked):
    """A script that answers with the seed that it was asked with, and remembers the sessions."""

    def say(request):
        asked.append((request.session, request.sampling.seed))
        return f"<think></think>\n<answer>{request.sampling.seed}</answer>"

    return say


VOTE = Setup(model="scripted", strategy="vote(direct(frames=2),n=3,early=no)", n=2, seed=5)


def test_every_run_of_a_vote_becomes_an_episode(tasks, scripted, tmp_path):
    tasks, asked = tasks[:2], []
    done = run(tasks, tmp_path, VOTE, agent=scripted(said_by(asked)))
    kept = list(read_trajectories(done.path))
    assert [t.id for t in kept] == [f"{t.id}.{i}-{k}of3" for t in tasks for i in range(2) for k in (1, 2, 3)]
    for task in tasks:
        group = [t for t in kept if t.group_id == task.id]
        assert len({t.seed for t in group}) == 6 and [t.seed for t in group[::3]] == [5, 6]  # the first is the plain run
        assert [t.temperature for t in group] == [0.0, 0.7, 0.7] * 2
        assert all(t.reward_parts is not None and t.usage.model_calls == 1 for t in group)  # scored and billed each on its own
    assert {d.name: (d.seen, d.dropped) for d in done.drops} == {"failed": (12, 0), "twice": (12, 0)}
    TrajectorySet(tmp_path).store().pixels(kept[0].frames[0])
    assert all(t.exact for t in Validator(TrajectorySet(tmp_path)).read())
    assert len(asked) == 12
    again = run(tasks, tmp_path, VOTE, "format", agent=scripted(said_by(asked)))
    assert len(asked) == 12 and again.kept == 12  # filtered anew, played once


@pytest.mark.parametrize("lines", [2, 4])
def test_a_vote_that_was_cut_is_played_again_whole(tasks, scripted, tmp_path, lines):
    """A kill may come between the lines of a run."""
    calm = run(tasks[:1], tmp_path / "calm", VOTE, agent=scripted(said_by([])))
    log, asked = tmp_path / "calm" / "episodes.jsonl", []
    (tmp_path / "cut").mkdir()
    first = log.read_bytes().splitlines(keepends=True)
    (tmp_path / "cut" / "episodes.jsonl").write_bytes(b"".join(first[:lines]) + first[lines][:50])
    (tmp_path / "cut" / "manifest.json").write_bytes((tmp_path / "calm" / "manifest.json").read_bytes())
    cut = run(tasks[:1], tmp_path / "cut", VOTE, agent=scripted(said_by(asked)))
    assert len(asked) == 6 - lines // 3 * 3
    said = [[(t.id, t.seed, t.token_ids, t.reward_parts) for t in read_trajectories(d.path)] for d in (calm, cut)]
    assert said[0] == said[1]


def test_a_vote_with_a_failure_is_played_again_and_the_later_run_counts(tasks, scripted, tmp_path):
    """Also where the run that comes instead is shorter: nothing of the failed one is left in the set."""
    broken = True

    def say(request):
        if broken and request.session.endswith("-1"):
            raise RuntimeError("out of order")
        return f"<think></think>\n<answer>{request.sampling.seed if broken else tasks[0].answer}</answer>"

    setup = Setup(model="scripted", strategy="vote(direct(frames=2),n=3,weight=none)")
    done = run(tasks[:1], tmp_path, setup, agent=scripted(say))
    assert (done.kept, done.drops[0].dropped) == (2, 1) and "out of order" in (done.first_error or "")
    broken = False
    done = run(tasks[:1], tmp_path, setup, agent=scripted(say))  # two agree: the third is not asked
    assert (done.drops[0].seen, done.drops[0].dropped, done.drops[1].dropped, done.first_error) == (2, 0, 1, None)
    assert [t.id for t in read_trajectories(done.path)] == [f"{tasks[0].id}.0-1of2"]


def test_what_answers_nothing_is_no_episode(tasks, scripted, tmp_path):
    asked = []

    def say(request):
        asked.append(request)
        verdict = request.messages[-1].role == "assistant"
        return "yes" if verdict else f"<think></think>\n<answer>{request.sampling.seed}</answer>"

    judged = Setup(model="scripted", strategy="best-of-n(direct(frames=2),n=2,judge=yes-no)")
    done = run(tasks[:1], tmp_path / "judged", judged, agent=scripted(say))
    kept = list(read_trajectories(done.path))
    assert len(asked) == 4 and len(kept) == 2 and all(t.answer is not None for t in kept)


def test_episodes_are_in_the_order_in_which_they_were_started_and_no_failure_goes_unseen(make_task, make_trajectory):
    from dataclasses import replace

    task = make_task()
    (job,) = jobs_of([task], Setup())
    cut = replace(make_trajectory(task), id="r-11", answer=None, stop_reason=StopReason.LENGTH)
    verdict = replace(make_trajectory(task), id="r-3", answer=None)
    runs = (cut, verdict, replace(make_trajectory(task), id="r-2", seed=9))
    scaled = Scaled(
        strategy="vote", task=task, answer=None, stop_reason=StopReason.ANSWERED, why="", usage=Usage(), budget=Budget(),
        trajectories=runs, trace=(),
    )  # fmt: skip
    assert [(t.id, t.seed) for t in episodes_of(job, scaled, "m")] == [(f"{task.id}.0-1of2", 9), (f"{task.id}.0-2of2", 0)]
    broken = replace(scaled, error="the judge is down", stop_reason=StopReason.ERROR)
    assert [t.error for t in episodes_of(job, broken, "m")] == [None, None, "the judge is down"]
    (none,) = episodes_of(job, replace(broken, trajectories=(verdict,)), "m")
    assert (none.id, none.error, none.model) == (f"{task.id}.0", "the judge is down", "m")


def test_limits_bound_the_whole_run_and_a_run_that_they_leave_nothing_is_a_failure(tasks, scripted, tmp_path):
    from dataclasses import replace

    asked = []
    few = replace(VOTE, n=1, limits={"model_calls": 2})
    done = run(tasks[:1], tmp_path / "few", few, agent=scripted(said_by(asked)))
    assert len(asked) == 2 and [t.id for t in read_trajectories(done.path)] == [f"{tasks[0].id}.0-{k}of2" for k in (1, 2)]
    done = run(tasks[:1], tmp_path / "none", replace(VOTE, n=1, limits={"model_calls": 0}), agent=scripted(said_by(asked)))
    assert len(asked) == 2 and done.kept == 0 and "larger --budget" in (done.first_error or "")


def test_no_more_episodes_than_workers_run_at_once(tasks, scripted, tmp_path):
    now, most = 0, 0

    class Counting:
        def __init__(self, policy):
            self.policy = policy

        def __getattr__(self, name):
            return getattr(self.policy, name)

        async def generate(self, requests):
            nonlocal now, most
            now += len(requests)
            most = max(most, now)
            for _ in range(20):  # the others get their turn
                await asyncio.sleep(0)
            now -= len(requests)
            return await self.policy.generate(requests)

    agent = scripted(said_by([]))
    agent.policy = Counting(agent.policy)
    run(tasks[:3], tmp_path, VOTE, agent=agent, workers=2)
    assert most == 2


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

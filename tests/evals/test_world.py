"""The world benchmark: how tasks are chosen and split, and a whole small run with the embedded model, resumed."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from playhead import LoadOptions
from playhead.agent.profile import Profile
from playhead.agent.scaling.strategy import Scaled, Strategy
from playhead.core.budget import Usage
from playhead.core.clip import Clip
from playhead.core.errors import DataError, ModelError, PlayheadError
from playhead.core.nouns import StopReason, Task
from playhead.core.tasks import read_tasks, write_tasks
from playhead.core.trajectory import Trajectory, read_trajectories
from playhead.evals.ledger import Ledger
from playhead.evals.manifest import IDENTITY, Setup, make_manifest
from playhead.evals.workers import run_here, shares
from playhead.evals.world import evaluate_world, spread


def test_a_small_run_has_every_kind(make_task) -> None:
    tasks = [make_task(kind=kind, number=i) for kind in ("motion", "count", "when") for i in range(5)]
    assert Counter(t.kind for t in spread(tasks, 6)) == {"motion": 2, "count": 2, "when": 2}
    assert spread(tasks, None) == tasks and spread(tasks, 99) != [] and len(spread(tasks, 99)) == 15


def test_a_video_stays_with_one_worker(make_task) -> None:
    jobs = [(key, make_task(number=i, video=f"/films/{i % 3}.mp4")) for key in "ab" for i in range(12)]
    parts = shares(jobs, 2)
    assert sorted(len(p) for p in parts) == [8, 16]
    assert not {t.video for _, t in parts[0]} & {t.video for _, t in parts[1]}
    assert all(part == sorted(part, key=jobs.index) for part in parts)
    assert len(shares(jobs, 8)) == 3


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"strategy": "hope"}, "hope"),
        ({"frames": 8}, "--frames"),
        ({"strategy": "vote", "frames": 8}, "--frames"),
        ({"strategy": "direct", "frames": 0}, "--frames"),
        ({"limits": {"frames": -1}}, "frames"),
        ({"tools": ("search_clips", "guess")}, "guess"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict, says: str) -> None:
    with pytest.raises(PlayheadError, match=says):
        Setup(**wrong)


@dataclass(frozen=True, kw_only=True)
class Replies(Strategy):
    """Gives the trajectories it was told to, by task; where there is none it fails. Notes the seeds that it was given."""

    said: dict[str, Trajectory]
    seeds: list[int]

    name = "replies"
    help = ""

    async def solve(self, bench, purse, seed):
        raise NotImplementedError

    async def run(self, agent, task, budget=None, seed=None, tell=None, *, concurrency=8) -> Scaled:
        self.seeds.append(seed)
        made = self.said.get(task.id)
        return Scaled(
            strategy="replies",
            task=task,
            answer=made.answer if made else None,
            stop_reason=made.stop_reason if made else StopReason.ERROR,
            why="",
            usage=made.usage if made else Usage(),
            budget=budget,
            trajectories=(made,) if made else (),
            trace=(),
            chosen=made.id if made else None,
            error=None if made else "a.mp4: gone",
        )


def ask(strategy: Replies, *tasks: Task) -> list:
    noted = []
    agent: Any = SimpleNamespace(policy=None, profile=Profile())
    jobs = [("cell", task) for task in tasks]
    setups = {"cell": Setup(strategy=strategy, seed=7)}
    asyncio.run(run_here(agent, setups, jobs, lambda *done: noted.append(done)))
    return noted


def test_an_episode_that_fails_is_a_result(make_task, make_trajectory) -> None:
    first, second = make_task(number=1), make_task(number=2)
    strategy = Replies(said={second.id: make_trajectory(second)}, seeds=[])
    noted = ask(strategy, first, second)
    assert [(key, r.right, r.error) for key, r, _ in noted] == [("cell", False, "a.mp4: gone"), ("cell", True, None)]
    assert noted[0][2] is None and json.loads(noted[1][2])["task"]["id"] == second.id
    assert noted[0][1].recall == 0.0 and noted[1][1].calls == 2


def test_every_task_has_a_seed_of_its_own(make_task) -> None:
    first, second = (Replies(said={}, seeds=[]) for _ in range(2))
    tasks = [make_task(number=i) for i in range(3)]
    ask(first, *tasks)
    ask(second, tasks[2], tasks[0])  # whatever was asked before
    assert len(set(first.seeds)) == 3 and second.seeds == [first.seeds[2], first.seeds[0]]


def test_another_film_under_the_same_name_is_noticed(make_task, make_trajectory) -> None:
    task = make_task()
    moved = replace(task, evidence=(Clip(video_id="other", start_s=0.0, end_s=1.0),))
    with pytest.raises(DataError, match="not the film"):
        ask(Replies(said={task.id: make_trajectory(task)}, seeds=[]), moved)


@pytest.mark.timeout(300)
def test_a_run_with_the_embedded_model(world: Path, tmp_path: Path) -> None:
    setup, new = Setup(home=tmp_path / "home"), []
    out = tmp_path / "run"
    summary, results = evaluate_world(world, out, setup, limit=3, on_result=lambda r, done, total: new.append((done, total)))
    assert new == [(1, 3), (2, 3), (3, 3)]
    assert summary["tasks"] == 3 and summary["errors"] == 0 and summary["manifest"]["model_sha256"]
    assert json.loads((out / "summary.json").read_text())["accuracy"] == summary["accuracy"]
    assert [t.task.id for t in read_trajectories(out / "trajectories.jsonl")] == [r.task_id for r in results]

    again, _ = evaluate_world(world, out, setup, limit=3, on_result=lambda *_: pytest.fail("all of it is done"))
    assert again["right"] == summary["right"]
    with pytest.raises(DataError, match="name another folder"):
        evaluate_world(world, out, Setup(strategy="direct", frames=8, home=tmp_path / "home"), limit=3)


def test_how_a_model_is_loaded_is_part_of_the_run(world: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    plain = make_manifest(world, Setup(model="some/model"), None)
    assert plain["load"] is None and plain["adapter_sha256"] is None
    load = LoadOptions(dtype="bfloat16", adapter=tmp_path / "adapter")
    adapted = make_manifest(world, Setup(model="some/model", load=load), None)
    assert adapted["load"]["dtype"] == "bfloat16" and adapted["adapter_sha256"]
    assert make_manifest(world, Setup(model="some/model", load=LoadOptions(cache_gb=2.0)), None)["load"] is None
    with Ledger(tmp_path / "run", plain, IDENTITY):
        pass
    with pytest.raises(DataError, match="load = None"):
        Ledger(tmp_path / "run", adapted, IDENTITY)
    assert json.loads(json.dumps(adapted)) == adapted, "a resumed run compares with what JSON gave back"


def test_a_models_tools_are_part_of_the_run(world: Path, tmp_path: Path) -> None:
    some, others = (make_manifest(world, Setup(tools=tools), None) for tools in (("search_clips",), ("temporal_zoom",)))
    own = make_manifest(world, Setup(), None)
    with Ledger(tmp_path / "some", some, IDENTITY), Ledger(tmp_path / "own", own, IDENTITY):
        pass
    with Ledger(tmp_path / "some", some, IDENTITY):
        pass
    for root, other in (("some", others), ("some", own), ("own", some)):
        with pytest.raises(DataError, match=r"with tools = .*name another folder"):
            Ledger(tmp_path / root, other, IDENTITY)
    held = tmp_path / "own" / "manifest.json"
    held.write_text(json.dumps({k: v for k, v in own.items() if k != "tools"}))
    with Ledger(tmp_path / "own", own, IDENTITY):
        pass  # a manifest from before there was the key
    with pytest.raises(DataError, match="tools = None"):
        Ledger(tmp_path / "own", some, IDENTITY)


def test_a_password_gets_into_no_manifest(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="password") as caught:
        evaluate_world(world, tmp_path / "run", Setup(model="http://u:hush@h/v1#m"))
    assert "hush" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.timeout(300)
def test_uniform_frames_in_a_process_of_its_own(world: Path, tmp_path: Path) -> None:
    data = tmp_path / "world.jsonl"
    write_tasks(data, read_tasks(world)[:2])
    setup = Setup(strategy="direct", frames=8, home=tmp_path / "home")
    summary, results = evaluate_world(data, tmp_path / "run", setup, workers=2)
    assert summary["tasks"] == 2 and summary["errors"] == 0
    assert all(r.frames == 8 and r.calls == 0 for r in results)

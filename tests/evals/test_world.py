"""The world benchmark: how tasks are chosen and split, and a whole small run with the embedded model, resumed."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from playhead import LoadOptions
from playhead.core.clip import Clip
from playhead.core.errors import DataError, VideoError
from playhead.core.tasks import read_tasks, write_tasks
from playhead.core.trajectory import read_trajectories
from playhead.evals.ledger import Ledger
from playhead.evals.world import IDENTITY, Setup, evaluate_world, make_manifest, run_tasks, shares, spread


def test_a_small_run_has_every_kind(make_task) -> None:
    tasks = [make_task(kind=kind, number=i) for kind in ("motion", "count", "when") for i in range(5)]
    assert Counter(t.kind for t in spread(tasks, 6)) == {"motion": 2, "count": 2, "when": 2}
    assert spread(tasks, None) == tasks and spread(tasks, 99) != [] and len(spread(tasks, 99)) == 15


def test_a_video_stays_with_one_worker(make_task) -> None:
    tasks = [make_task(number=i, video=f"/films/{i % 3}.mp4") for i in range(12)]
    parts = shares(tasks, 2)
    assert sorted(len(p) for p in parts) == [4, 8]
    assert not {t.video for t in parts[0]} & {t.video for t in parts[1]}
    assert len(shares(tasks, 8)) == 3


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"strategy": "hope"}, "hope"),
        ({"strategy": "direct"}, "--frames"),
        ({"frames": 8}, "--frames"),
        ({"strategy": "direct", "frames": 0}, "--frames"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        Setup(**wrong)


class Replies:
    """Stands for an agent: gives the trajectories it was told to, in order, and raises the errors among them."""

    def __init__(self, *replies) -> None:
        self.replies = list(replies)

    async def arun(self, task):
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def test_an_episode_that_fails_is_a_result(make_task, make_trajectory) -> None:
    first, second = make_task(number=1), make_task(number=2)
    noted = []
    agent = Replies(VideoError("a.mp4: gone"), make_trajectory(second))
    asyncio.run(run_tasks(agent, [first, second], Setup(), lambda r, line: noted.append((r, line))))
    assert [(r.right, r.error) for r, _ in noted] == [(False, "a.mp4: gone"), (True, None)]
    assert noted[0][1] is None and json.loads(noted[1][1])["task"]["id"] == second.id


def test_another_film_under_the_same_name_is_noticed(make_task, make_trajectory) -> None:
    task = make_task()
    moved = replace(task, evidence=(Clip(video_id="other", start_s=0.0, end_s=1.0),))
    with pytest.raises(DataError, match="not the film"):
        asyncio.run(run_tasks(Replies(make_trajectory(task)), [moved], Setup(), lambda r, line: None))


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
    with Ledger(tmp_path / "run", plain, IDENTITY):
        pass
    with pytest.raises(DataError, match="load = None"):
        Ledger(tmp_path / "run", adapted, IDENTITY)
    assert json.loads(json.dumps(adapted)) == adapted, "a resumed run compares with what JSON gave back"


@pytest.mark.timeout(300)
def test_uniform_frames_in_a_process_of_its_own(world: Path, tmp_path: Path) -> None:
    data = tmp_path / "world.jsonl"
    write_tasks(data, read_tasks(world)[:2])
    setup = Setup(strategy="direct", frames=8, home=tmp_path / "home")
    summary, results = evaluate_world(data, tmp_path / "run", setup, workers=2)
    assert summary["tasks"] == 2 and summary["errors"] == 0
    assert all(r.frames == 8 and r.calls == 0 for r in results)

"""The grid survives being killed: what it writes in the end does not tell. A stub in real processes, and the model in one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grid_stub as stub
import pytest
from playhead.core.errors import DataError
from playhead.core.tasks import write_tasks
from playhead.evals.grid import cells_of, run_grid
from playhead.evals.manifest import Setup

PATIENCE_S = 120.0
"""Bounds a wait; nothing depends on how long it takes."""


@pytest.fixture
def tasks(tmp_path: Path, make_task) -> Path:
    write_tasks(tmp_path / "tasks.jsonl", [make_task(number=i, video=f"/films/{i % 4}.mp4") for i in range(20)])
    return tmp_path / "tasks.jsonl"


def start(tasks: Path, out: Path, workers: int, wait_s: float) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, stub.__file__, str(tasks), str(out), str(workers), str(wait_s)])


def results_in(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.glob("*/results.jsonl"))


def wait_until(holds, process: subprocess.Popen | None = None) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it took too long"
        assert process is None or process.poll() is None, f"it ended by itself ({process.returncode})"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except (OSError, IndexError):
            continue
    return found


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.timeout(600)
def test_killed_twice_it_ends_in_the_same_file(tasks: Path, tmp_path: Path) -> None:
    run_grid(tasks, tmp_path / "whole", stub.stub_cells())
    out = tmp_path / "killed"
    for least in (3, 70):
        process = start(tasks, out, 1, 0.01)
        try:
            wait_until(lambda least=least: results_in(out) >= least, process)
        finally:
            process.kill()
            process.wait(PATIENCE_S)
    assert not (out / "results.json").exists() and 70 <= results_in(out) < 120
    # As if it had died in the middle of a line.
    with next(out.glob("*/results.jsonl")).open("a") as file:
        file.write('{"task_id": "motion-1')
    run_grid(tasks, out, stub.stub_cells())
    assert (out / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()
    assert results_in(out) == 120


@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_end_with_the_one_that_is_killed(tasks: Path, tmp_path: Path) -> None:
    run_grid(tasks, tmp_path / "whole", stub.stub_cells())
    out = tmp_path / "killed"
    process = start(tasks, out, 2, 0.05)
    workers: list[int] = []
    try:
        wait_until(lambda: results_in(out) >= 4, process)
        workers = children(process.pid)
        assert len(workers) >= 2
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
        wait_until(lambda: all(map(gone, workers)))
    finally:
        process.kill()
        for pid in workers:
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)
    again = start(tasks, out, 2, 0.0)
    assert again.wait(PATIENCE_S) == 0
    assert (out / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()


def test_cells_may_be_added(tasks: Path, tmp_path: Path) -> None:
    cells, new = stub.stub_cells(), []
    run_grid(tasks, tmp_path / "run", cells[:2])
    bill, _ = run_grid(tasks, tmp_path / "run", cells, on_result=lambda *_: new.append(_))
    assert len(new) == 80 and new[0][2:] == (41, 120) and len(bill.rows) == 6


def test_the_file_holds_no_time(tasks: Path, tmp_path: Path) -> None:
    bill, results = run_grid(tasks, tmp_path / "run", stub.stub_cells())
    held = json.loads((tmp_path / "run" / "results.json").read_text())
    text = json.dumps(held)
    assert "seconds" not in text and "wall" not in text and "cores" not in text
    assert held["rows"][0]["cost"] == {k: v for k, v in bill.rows[0].cost.items() if k != "seconds"}
    assert json.loads((tmp_path / "run" / "seconds.json").read_text())["hashed(good=4) frames=16"]["sum_s"] > 0
    assert [r.frames for r in results["hashed(good=8) frames=64"]] == [64] * 20


def test_another_grid_is_refused(tasks: Path, tmp_path: Path) -> None:
    run_grid(tasks, tmp_path / "run", stub.stub_cells()[:1])
    with pytest.raises(DataError, match="name another folder"):
        run_grid(tasks, tmp_path / "run", stub.stub_cells()[:1], limit=3)


def test_cells_have_names_of_their_own() -> None:
    cells = cells_of(Setup(), ["vote:n=4", "tools"], [{"frames": 16, "wall_s": 2.5}, {"frames": None}])
    assert [c.key for c in cells] == [
        "vote(tools,n=4) frames=16,seconds=2.5",
        "vote(tools,n=4) frames=none",
        "tools frames=16,seconds=2.5",
        "tools frames=none",
    ]
    assert cells[0].folder == "vote-tools-n=4-frames=16-seconds=2.5"
    assert cells_of(Setup(), ["tools"], [])[0].key == "tools"
    with pytest.raises(DataError, match="twice"):
        cells_of(Setup(), ["vote:n=8", "vote"], [])
    with pytest.raises(DataError, match="0 or more"):
        cells_of(Setup(), ["tools"], [{"frames": -1}])


@pytest.mark.timeout(600)
def test_the_command_with_the_embedded_model(world: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    from playhead.cli.app import run

    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    out = tmp_path / "run"
    command = ["scale", "--data", str(world), "--out", str(out), "--limit", "2"]
    command += ["--strategies", "direct:frames=8,vote:n=2,early=no", "--budgets", "frames=40"]
    assert run(command) == 0
    said = capsys.readouterr().out
    assert "vote(tools,n=2" in said and "cheapest within 1 point" in said
    held = json.loads((out / "results.json").read_text())
    assert held["tasks"] == 2 and len(held["rows"]) == 2 and held["manifest"]["model_sha256"]
    by_cell = {r["cell"]: r for r in held["rows"]}
    assert by_cell["direct(frames=8) frames=40"]["cost"]["frames"] == 8
    assert by_cell["vote(tools,n=2,early=False) frames=40"]["reused"] > 0
    assert (out / "scaling.png").stat().st_size > 10_000 and (out / "scaling.html").stat().st_size > 10_000

    before = (out / "results.json").read_bytes()
    # Asked again from nothing, behind the other cell: what it costs does not depend on what was asked before it.
    for path in (out / "direct-frames=8-frames=40").iterdir():
        path.unlink()
    assert run([*command, "--json"]) == 0
    assert (out / "results.json").read_bytes() == before and capsys.readouterr().out.encode() == before

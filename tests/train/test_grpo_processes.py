"""Several processes: torchrun with gloo, ranks of different numbers of turns, a sharded model, and a process that is killed
in the middle of its rollouts."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
TOY = Path(__file__).parent / "grpo_toy.py"
LIMIT_S = 900
"""A hang would last for ever; a busy machine needs minutes to import torch three times."""
pytestmark = pytest.mark.timeout(4 * LIMIT_S)


@dataclass(frozen=True)
class Done:
    code: int
    said: str


def run(checkpoint: Path, out: Path, steps: int, *flags: str, processes: int = 1) -> Done:
    head = [sys.executable]
    if processes > 1:
        head += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1"}
    command = [*head, str(TOY), str(checkpoint), str(out), str(steps), *flags]
    child = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = child.communicate(timeout=LIMIT_S)
    finally:
        with suppress(ProcessLookupError):  # torchrun's own children too
            os.killpg(child.pid, signal.SIGKILL)
    return Done(child.returncode, said[-3000:])


def reports(out: Path) -> list[dict]:
    return [json.loads((out / f"rank{r}.json").read_text()) for r in range(2)]


def test_two_processes_whose_episodes_have_different_numbers_of_turns(checkpoint, tmp_path):
    done = run(checkpoint, tmp_path, 2, "--uneven", processes=2)
    assert done.code == 0, done.said
    one, other = reports(tmp_path)
    assert one["sum"] == pytest.approx(other["sum"], abs=1e-9), "both hold the same weights"
    assert one["played"] == other["played"] == 16
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["rollouts/sound"] for line in lines] == [16.0, 16.0] and lines[0]["turns"] == 3.0
    assert all(line["logprob_gap/max"] <= 1e-4 for line in lines)


def test_a_sharded_model_with_rollouts_on_a_replica(checkpoint, tmp_path):
    """FSDP2's own sharding: every forward of the model is a collective, and ranks play different numbers of turns."""
    done = run(checkpoint, tmp_path, 2, "--uneven", "--fsdp", processes=2)
    assert done.code == 0, done.said
    one, other = reports(tmp_path)
    assert one["sharded"] > 10 and one["sum"] == pytest.approx(other["sum"], abs=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all(0 < line["logprob_gap/max"] <= 1e-4 for line in lines), "the replica follows"


def test_a_run_killed_in_the_middle_of_its_rollouts_goes_on(checkpoint, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = run(checkpoint, cut, 2, "--die-at", "2")
    assert done.code == -signal.SIGKILL
    for out in (cut, whole):
        done = run(checkpoint, out, 2)
        assert done.code == 0, done.said
    ours, theirs = (json.loads((out / "rank0.json").read_text()) for out in (cut, whole))
    assert ours["sum"] == pytest.approx(theirs["sum"], abs=1e-5)
    assert ours["played"] == 8 and theirs["played"] == 16, "only the step that was cut was played again"

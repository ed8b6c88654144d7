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

import grpo_toy as toy
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
LIMIT_S = 900
"""A hang would last for ever; a busy machine needs minutes to import torch three times."""
pytestmark = pytest.mark.timeout(2 * LIMIT_S)


@dataclass(frozen=True)
class Done:
    code: int
    said: str


def run(checkpoint: Path, out: Path, steps: int, *flags: str, processes: int = 1) -> Done:
    head = [sys.executable]
    if processes > 1:
        head += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1"}
    command = [*head, toy.__file__, str(checkpoint), str(out), str(steps), *flags]
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


@pytest.fixture(scope="module")
def together(checkpoint, tmp_path_factory) -> Path:
    """Two processes whose episodes have different numbers of turns; the second time with a sharded model."""
    out = tmp_path_factory.mktemp("together")
    done = run(checkpoint, out, 2, "--uneven", "--fsdp", processes=2)
    assert done.code == 0, done.said
    return out


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_whose_episodes_have_different_numbers_of_turns(together):
    one, other = reports(together)
    assert one["sum"] == pytest.approx(other["sum"], abs=1e-9), "both hold the same weights"
    assert one["played"] == other["played"] == 16 and one["sharded"] == 0
    steps = lines(together)
    assert [line["rollouts/sound"] for line in steps] == [16.0, 16.0] and steps[0]["turns"] == 3.0
    assert all(line["logprob_gap/max"] <= 1e-4 for line in steps)


def test_a_sharded_model_with_rollouts_on_a_replica(together):
    """FSDP2's own sharding: every forward of the model is a collective, and ranks play different numbers of turns."""
    one, other = reports(together / "sharded")
    assert one["sharded"] > 10 and one["sum"] == pytest.approx(other["sum"], abs=1e-6)
    steps = lines(together / "sharded")
    assert len(steps) == 2 and all(0 < line["logprob_gap/max"] <= 1e-4 for line in steps), "the replica follows"
    for plain, sharded in zip(lines(together), steps, strict=True):
        assert sharded["reward"] == pytest.approx(plain["reward"], abs=1e-5), "the same run, however the model lies"


def test_a_run_killed_in_the_middle_of_its_rollouts_goes_on(checkpoint, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = run(checkpoint, cut, 2, "--die-at", "2")
    assert done.code == -signal.SIGKILL, done.said
    trainers = [toy.make_trainer(checkpoint, out, steps=2) for out in (cut, whole)]
    for trainer in trainers:
        trainer.train()
    for p, q in zip(*(t.model.parameters() for t in trainers), strict=True):
        assert (p - q).abs().max() < 1e-5
    assert [t.agent.played for t in trainers] == [8, 16], "only the step that was cut was played again"


def test_one_of_two_processes_killed_in_its_rollouts_ends_the_run_and_it_goes_on(checkpoint, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(checkpoint, cut, 2, "--die-at", "2", processes=2).code != 0, "the other one does not wait for ever"
    assert not (cut / "rank0.json").exists() and len(lines(cut)) == 1
    for out in (cut, whole):
        done = run(checkpoint, out, 2, processes=2)
        assert done.code == 0, done.said
    resumed, straight = reports(cut), reports(whole)
    assert [r["played"] for r in resumed] == [8, 8] and [r["played"] for r in straight] == [16, 16]
    assert resumed[0]["sum"] == pytest.approx(straight[0]["sum"], abs=1e-5)
    for a, b in zip(lines(cut), lines(whole), strict=True):
        for name in ("reward", "loss"):
            assert a[name] == pytest.approx(b[name], abs=1e-5, rel=0), name

"""Two processes under torchrun (gloo, CPU) are the same run as one that takes both batches of a step itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.timeout(900)
LIMIT_S = 600
SETTINGS = ("batch_tokens=700", "held_out_every=6", "muon=0.001", "use_cpu=true", "bf16=false", "logging_steps=1")
COMMON = ("--recipe", "qwen3vl_8b_sft", "--steps", "2", "--measure-every", "2", *(x for s in SETTINGS for x in ("--set", s)))


def train(launch: list[str], init: Path, data: Path, out: Path, accumulate: int) -> list[float]:
    """Losses of the run, step by step."""
    import playhead

    root = Path(playhead.__file__).parent
    site = out.parent / "site"
    site.mkdir(exist_ok=True)
    if not (site / "playhead").exists():
        (site / "playhead").symlink_to(root, target_is_directory=True)
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
    env |= {"PYTHONPATH": str(site), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [*launch, "-m", "playhead", "train", "sft", *COMMON, "--init", str(init), "--data", str(data), "--out", str(out)]
    command += ["--set", f"gradient_accumulation_steps={accumulate}"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=out.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    entries = map(json.loads, (out / "curve.jsonl").read_text().splitlines())
    return [e[k] for e in entries for k in ("loss", "eval_loss") if k in e]


def test_two_processes_share_a_step(checkpoint, recorded_set, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    one = train([sys.executable], checkpoint, recorded_set, tmp_path / "one", 2)
    two = train(torchrun, checkpoint, recorded_set, tmp_path / "two", 1)
    assert len(one) == 4 and two == pytest.approx(one, abs=1e-4)

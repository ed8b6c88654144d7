"""Where a run's figures go: through transformers' callbacks to TensorBoard and the like; a missing package is said at once."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from playhead.cli import run as cli
from playhead.core.errors import ModelError
from playhead.train import reporting
from playhead.train.recipes import recipe
from playhead.train.reporting import check_reporters

pytest.importorskip("torch")
pytestmark = pytest.mark.timeout(600)  # reading trl alone takes half a minute on a busy machine


def sft(checkpoint: Path, data: Path, out: Path, *flags: str) -> list[str]:
    """The command of two steps on a tiny model."""
    small = ("use_cpu=true", "bf16=false", "logging_steps=1", "gradient_accumulation_steps=1", "batch_tokens=700")
    settings = [x for s in (*small, "held_out_every=6") for x in ("--set", s)]
    where = ["--init", str(checkpoint), "--data", str(data), "--out", str(out)]
    return ["train", "sft", "--recipe", "qwen3vl_8b_sft", *where, "--steps", "2", "--measure-every", "2", *settings, *flags]


def test_tensorboard_shows_what_the_curve_shows(checkpoint, recorded_set, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    assert cli(sft(checkpoint, recorded_set, out, "--report-to", "tensorboard")) == 0
    (written,) = {f.parent for f in (out / "state" / "runs").rglob("events.out.*")}
    events = EventAccumulator(str(written)).Reload()
    curve = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    for tag, name in (("train/loss", "loss"), ("eval/loss", "eval_loss"), ("train/token_accuracy", "token_accuracy")):
        expected = {e["step"]: pytest.approx(e[name], abs=1e-5) for e in curve if name in e}
        assert expected and {e.step: e.value for e in events.Scalars(tag)} == expected


def test_trackio_is_told_through_its_callback(checkpoint, recorded_set, tmp_path, monkeypatch):
    """A stand-in of trackio with what transformers' callback calls: the real one brings a server of its own."""
    from contextvars import ContextVar
    from importlib.machinery import ModuleSpec
    from types import SimpleNamespace

    told: list[dict[str, float]] = []
    asked: list[dict[str, object]] = []
    stand_in = ModuleType("trackio")
    stand_in.__spec__ = ModuleSpec("trackio", None)
    stand_in.init = lambda **how: asked.append(how)  # type: ignore[attr-defined]
    stand_in.log = lambda figures, *_, **__: told.append(figures)  # type: ignore[attr-defined]
    stand_in.finish = lambda: None  # type: ignore[attr-defined]
    stand_in.config = type("Config", (dict,), {"update": lambda self, *_, **__: None})()  # type: ignore[attr-defined]
    stand_in.context_vars = SimpleNamespace(current_space_id=ContextVar("space", default=None))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trackio", stand_in)
    assert cli(sft(checkpoint, recorded_set, tmp_path / "run", "--report-to", "trackio")) == 0
    assert [how["space_id"] for how in asked] == [None]  # it stays on this machine
    names = {name for figures in told for name in figures}
    assert {"train/loss", "eval/loss"} <= names


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_package_that_is_missing_is_said_before_anything_is_done(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reporting, "find_spec", lambda package: None)
    assert cli(sft(tmp_path, tmp_path, tmp_path / "run", "--report-to", name)) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"pip install {name}" in said and "Traceback" not in said and not (tmp_path / "run").exists()
    dpo = ["train", "dpo", "--data", str(tmp_path), "--out", str(tmp_path / "dpo"), "--report-to", name]
    assert cli(dpo) == 2
    assert f"pip install {name}" in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "dpo").exists()


def test_names_are_those_of_transformers(tmp_path, monkeypatch):
    from playhead.train.sft import _arguments

    check_reporters(None)
    check_reporters("none")
    check_reporters(["mlflow"])  # transformers knows it, and says itself what it needs
    with pytest.raises(ModelError, match="'paper' is unknown; take none, tensorboard, trackio, wandb"):
        check_reporters("paper")
    monkeypatch.setattr(reporting, "find_spec", lambda package: object())
    check_reporters(["tensorboard", "wandb"])
    run = recipe("embedded_cpu")(init="x", data=[tmp_path], out=tmp_path)
    run = replace(run, trainer={**run.trainer, "report_to": ["tensorboard", "wandb"]})
    assert _arguments(run, False).report_to == ["tensorboard", "wandb"]

"""Rounds of playing and learning: real episodes of the real agent (the oracle speaks for a tiny model), real training."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from playhead.core.budget import Usage
from playhead.core.errors import DataError
from playhead.core.nouns import Completion
from playhead.core.tasks import read_tasks, write_tasks
from playhead.core.trajectory import Trajectory, read_trajectories
from playhead.train import rft
from playhead.train.data.filters import Correct
from playhead.train.rft import Cheapest, RFTRun, sft_run, train_rft
from playhead.train.weights import LossWeights

pytestmark = pytest.mark.timeout(600)  # a film is made and trl is read: a minute on a busy machine


@pytest.fixture
def make_run(world: Path, checkpoint: Path, tmp_path: Path):
    """Two tasks, one step of training a round; the tiny tokenizer has no whole words, so no token counts more."""
    tasks = tmp_path / "tasks.jsonl"
    kinds = ("attribute", "ocr", "motion")
    write_tasks(tasks, [t for t in read_tasks(world) if t.kind in kinds][:2])
    small = {
        "weights": LossWeights(), "muon": None, "decay": None, "batch_tokens": 2048, "held_out_every": 0, "steps": 1,
        "trainer": {"bf16": False, "gradient_accumulation_steps": 1, "learning_rate": 1e-3},
    }  # fmt: skip

    def make(**changes) -> RFTRun:
        how = {"rounds": 1, "n": 2, "changes": small} | changes
        return RFTRun(tasks=tasks, init=str(checkpoint), out=tmp_path / "run", **how)

    return make


@pytest.fixture
def played(monkeypatch) -> list[tuple[str, int]]:
    """The oracle speaks with the tokens of whoever should play; (model, seed) of every collection that was asked for."""
    asked: list[tuple[str, int]] = []

    async def oracle(tasks, out, setup, **how):
        asked.append((setup.model, setup.seed))
        speaking = replace(setup, model="oracle", tokenizer=Path(setup.model))
        return await collect(tasks, out, speaking, **how)

    collect = rft.collect
    monkeypatch.setattr(rft, "collect", oracle)
    return asked


def test_a_round_plays_keeps_and_learns_and_the_next_one_plays_with_what_was_learned(
    make_run, played, checkpoint
) -> None:
    said: list[str] = []
    run = make_run()
    told = train_rft(run, said.append)
    first, second = run.folder(1), run.folder(2)
    assert [(r["kept"], r["right"], r["played"]) for r in told["rounds"]] == [(2, 4, 4)]
    assert len(list(read_trajectories(first / "set" / "trajectories.jsonl"))) == 2
    assert (run.out / "checkpoint").resolve() == (first / "sft" / "checkpoint").resolve()
    assert any("2 episodes kept" in line for line in said)

    # The same command again does nothing; more rounds go on from the end.
    assert train_rft(run) == told and played == [(str(checkpoint), 1000)]
    train_rft(make_run(rounds=2))
    assert played[1:] == [(str(first / "sft" / "checkpoint"), 2000)]
    assert (run.out / "checkpoint" / "model.safetensors").samefile(second / "sft" / "checkpoint" / "model.safetensors")
    with pytest.raises(DataError, match="holds a run with another n"):
        train_rft(make_run(n=3))


def test_a_round_that_was_cut_goes_on_where_it_was(make_run, played, monkeypatch) -> None:
    import playhead.train.sft

    def killed(run):
        raise KeyboardInterrupt

    real = playhead.train.sft.train_sft
    monkeypatch.setattr(playhead.train.sft, "train_sft", killed)
    with pytest.raises(KeyboardInterrupt):
        train_rft(make_run())
    run = make_run()
    before = (run.folder(1) / "set" / "episodes.jsonl").read_bytes()
    assert not (run.folder(1) / "done.json").exists()
    monkeypatch.setattr(playhead.train.sft, "train_sft", real)
    train_rft(run)
    assert (run.folder(1) / "set" / "episodes.jsonl").read_bytes() == before  # nothing was played again
    assert json.loads((run.folder(1) / "done.json").read_text())["kept"] == 2


def test_a_round_in_which_nothing_verifies_is_an_error_that_says_so(make_run, played) -> None:
    with pytest.raises(DataError, match="of 4 episodes none was kept"):
        train_rft(make_run(keep="correct,difficulty=0-0.5"))


def test_a_bad_record_of_an_anchor_ends_the_run_before_anything_is_played(
    make_run, played, recorded_set, tmp_path
) -> None:
    anchor = tmp_path / "anchor"
    anchor.mkdir()
    (anchor / "frames").symlink_to(recorded_set / "frames")
    lines = (recorded_set / "trajectories.jsonl").read_text().splitlines()
    (anchor / "trajectories.jsonl").write_text("\n".join([*lines[:2], lines[2].replace('"sha256":"', '"sha256":"0')]))
    run = make_run(anchor=(anchor,))
    with pytest.raises(DataError, match=r"anchor/trajectories.jsonl:3: .*not in the frame store"):
        train_rft(run)
    assert played == [] and not (run.folder(1) / "set").exists()
    told = train_rft(replace(run, skip_bad=True))  # the same run: it goes on
    assert told["rounds"][0]["measured"]["bad_records_skipped"] == 1 and len(played) == 1


def test_the_supervised_run_of_a_round(make_run, tmp_path) -> None:
    run = make_run(anchor=(tmp_path / "oracle",), rate_scale=0.5, changes={}, passes=3.0)
    made = sft_run(run, 2, "later")
    assert made.init == "later" and made.data == (run.folder(2) / "set", tmp_path / "oracle") and made.passes == 3.0
    plain = rft.recipe("embedded_cpu")(init="x", data=(tmp_path,), out=tmp_path)
    assert made.muon == plain.muon / 2 and made.trainer["learning_rate"] == plain.trainer["learning_rate"] / 2
    assert sft_run(replace(run, from_init=True), 2, "later").init == run.init
    for bad in ({"rounds": 0}, {"temperature": 0.0}, {"rate_scale": 0.0}, {"cheapest": 0, "n": 0}):
        with pytest.raises(ValueError, match="must be"):
            make_run(**bad)


def test_the_cheapest_good_ones_of_a_task_are_kept(make_task, make_trajectory) -> None:
    def play(name: str, frames: int, said: str = "left", tokens: str = "") -> Trajectory:
        made = make_trajectory(make_task(), said)
        last = replace(made.turns[-1], completion=Completion(token_ids=tuple((tokens or name).encode()), text=name))
        return replace(made, id=name, turns=(*made.turns[:-1], last), usage=Usage(frames=frames))

    group = [
        play("dear", 9),
        play("wrong", 1, "right"),
        play("cheap", 3),
        play("twin", 3, tokens="cheap"),
        play("middle", 5),
    ]
    keeps = Cheapest(k=2, among=(Correct(),))
    assert [t.id for t in group if keeps(t, group)] == ["cheap", "middle"]
    assert [t.id for t in group if Cheapest(k=1)(t, group)] == ["wrong"]

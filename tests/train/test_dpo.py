"""Preferences on a tiny random Qwen3-VL: what is trained on is what was sampled, and the margins rise."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playhead.agent.prompts import first_messages
from playhead.cli import run as cli
from playhead.core.budget import Usage
from playhead.core.clip import Clip
from playhead.core.decoders.contract import DecodedFrame
from playhead.core.errors import DataError, ModelError
from playhead.core.frames import FrameStore
from playhead.core.nouns import Answer, Completion, Frame, Message, Observation, Task, ToolCall
from playhead.core.trajectory import Trajectory, Turn, write_trajectories

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.timeout(600)  # reading trl alone takes half a minute on a busy machine

CALL = (
    '<think>look</think>\n<tool_call>\n{"name": "temporal_zoom", "arguments": {"start_s": 10}}\n</tool_call><|im_end|>'
)


def show(store: FrameStore, t: float) -> Frame:
    pixels = np.random.default_rng(int(t)).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return store.put("v", DecodedFrame(timestamp_s=t, pixels=pixels))


def episode(renderer, store: FrameStore, number: int, right: bool, zooms: int = 1) -> Trajectory:
    """Asked with two frames, shown two more by each zoom, and answered; tokens as the renderer writes them."""
    gold = Clip(video_id="v", start_s=10.0, end_s=14.0)
    task = Task(
        id=f"t{number}", question="What?", video="v.mp4", choices=("red", "green"), answer="red", evidence=(gold,)
    )
    messages = first_messages(60.0, (show(store, 1.0 + number), show(store, 30.0)), task.question, task.choices)
    delta, turns = renderer.start(messages, ()), []
    for i in range(zooms):
        seen = (f"zoom {i}\n", show(store, 10.0 + i + number), show(store, 12.0 + i))
        observation = Observation(tool_call_id=f"c{i}", content=seen, clips=(gold,))
        said = Completion(token_ids=renderer.encode(CALL), text=CALL)
        call = ToolCall(id=f"c{i}", name="temporal_zoom", arguments_json="{}")
        turns.append(turn(i, delta, messages, said, (call,), (observation,)))
        messages = (Message(role="tool", content=seen),)
        delta = renderer.extend(said.token_ids, messages)
    text = f"<think>it is {number}</think>\n<answer>{'red' if right else 'green'}</answer><|im_end|>"
    turns.append(turn(zooms, delta, messages, Completion(token_ids=renderer.encode(text), text=text), (), ()))
    answer = Answer(text="red" if right else "green", choice=int(not right), evidence=(gold,))
    usage = Usage(turns=len(turns), frames=2 + 2 * zooms)
    return Trajectory(
        id=f"{task.id}.{right}.{zooms}", group_id=task.id, task=task, turns=tuple(turns), answer=answer, usage=usage
    )


def turn(index, delta, messages, said, calls, observations) -> Turn:
    return Turn(
        index=index, context_ids=delta.token_ids, context_frames=delta.frames, context_messages=tuple(messages),
        completion=said, tool_calls=calls, observations=observations,
    )  # fmt: skip


@pytest.fixture(scope="module")
def played(checkpoint, tmp_path_factory) -> Path:
    """A folder of groups: a right episode of one zoom and a wrong one of two, for each of six tasks."""
    from playhead.agent.policies.loading import load_renderer

    folder = tmp_path_factory.mktemp("played")
    renderer, store = load_renderer(str(checkpoint)), FrameStore(folder / "frames")
    both = [episode(renderer, store, n, right, zooms) for n in range(6) for right, zooms in ((True, 1), (False, 2))]
    write_trajectories(folder / "trajectories.jsonl", both)
    return folder


@pytest.fixture
def make_run(checkpoint, played, tmp_path):
    from playhead.train.dpo import DPORun

    def make(out: str = "run", **changes):
        how = {"steps": 1, "pairs_a_batch": 2, "learning_rate": 2e-3, "held_out_every": 0, "measure_every": 100}
        how |= {"trainer": {"logging_steps": 1, "warmup_steps": 0, "lr_scheduler_type": "constant"}} | changes
        return DPORun(init=str(checkpoint), data=(played,), out=tmp_path / out, **how)

    return make


def history(out: Path, name: str) -> list[float]:
    entries = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    return [e[name] for e in entries if name in e]


def test_loss_falls_margins_rise_and_the_result_is_an_ordinary_checkpoint(make_run, played) -> None:
    from playhead.agent.policies.loading import LoadOptions, load_checkpoint
    from playhead.train.dpo import train_dpo

    run = make_run(steps=8, held_out_every=3, measure_every=8)
    told = train_dpo(run)
    losses, margins = history(run.out, "loss"), history(run.out, "rewards/margins")
    assert losses[0] == pytest.approx(np.log(2), abs=1e-3) and losses[-1] < 0.8 * losses[0]
    assert margins[0] == pytest.approx(0, abs=1e-3) and margins[-1] > 0.1
    assert history(run.out, "eval_rewards/margins")[-1] > history(run.out, "eval_rewards/margins")[0]
    assert told["by_reason"]["right over wrong"] == 6 and (told["trained"], told["held_out"]) == (4, 2)
    assert json.loads((run.out / "pairs.json").read_text())["pairs"] == 6
    model, _ = load_checkpoint(told["checkpoint"], "cpu", LoadOptions())
    assert model.config.model_type == "qwen3_vl"


def test_only_sampled_tokens_count_and_every_frame_reaches_the_forward(make_run, checkpoint, played) -> None:
    """The mask is that of the samples; a tool's frame changes the log-probs of what was said after it, and of nothing else."""
    from playhead.agent.policies.loading import LoadOptions, load_checkpoint
    from playhead.train.collate import SampleCollator, sequence_logprobs
    from playhead.train.dpo import PairCollator, SamplePair
    from playhead.train.pairs import make_pairs, read_groups
    from playhead.train.samples import sample_of

    model, renderer = load_checkpoint(str(checkpoint), "cpu", LoadOptions())
    pairs = make_pairs(read_groups([played])).pairs[:2]
    both = [
        SamplePair(*(sample_of(t, renderer, renderer.image_token_id) for t in (p.chosen, p.rejected))) for p in pairs
    ]
    inner = SampleCollator(renderer, FrameStore(played / "frames"))
    inputs = PairCollator(both, inner)([{"pair": 0}, {"pair": 1}])
    rows = [both[0].chosen, both[1].chosen, both[0].rejected, both[1].rejected]
    for row, sample in zip(inputs["completion_mask"].tolist(), rows, strict=True):
        n = len(sample.token_ids_T)
        assert tuple(row[:n]) == sample.loss_mask_T and not any(row[n:])
        assert not any(m and t == renderer.image_token_id for t, m in zip(sample.token_ids_T, row[:n], strict=True))
    assert len(inputs["image_grid_thw"]) == sum(len(s.frames_F) for s in rows) == 4 + 4 + 6 + 6

    mask = inputs.pop("completion_mask")
    with torch.no_grad():
        before = sequence_logprobs(model, inputs) * mask
        patches = inputs["image_grid_thw"].prod(-1).tolist()
        last_of_first = sum(patches[:3])  # the second frame that the first episode's zoom showed
        inputs["pixel_values"][last_of_first : last_of_first + patches[3]] += 0.5
        after = sequence_logprobs(model, inputs) * mask
    changed = (after - before).abs().amax(1)
    assert changed[0] > 1e-4 and changed[1:].max() == 0
    first_said = mask[0].nonzero()[: len(renderer.encode(CALL))]  # the call came before the frame
    assert (after - before)[0, first_said].abs().max() == 0

    # TRL's own head over the same inputs says what the one forward says.
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model)
    labels = inputs["input_ids"].masked_fill(mask == 0, -100)
    with torch.no_grad():
        theirs = model(**inputs, labels=labels, fused_lm_head=True).log_probs
    assert (theirs - after[:, 1:]).abs().max() < 1e-4

    refined = PairCollator(both, inner, refined=True)([{"pair": 0}])["completion_mask"]
    assert refined[0].sum() < mask[0].sum() and refined[0].sum() > 0
    differ = np.argmax(np.array(rows[0].token_ids_T) != np.array(rows[2].token_ids_T)[: len(rows[0].token_ids_T)])
    assert refined[:, :differ].sum() == 0 and refined[:, differ:].sum() > 0


@pytest.mark.parametrize("loss", ["length_normalised", "length_desensitised", "regularised", "ipo"])
def test_every_loss_moves_the_right_way(make_run, loss: str) -> None:
    from playhead.train.dpo import Loss, train_dpo

    run = make_run(loss=Loss(loss), steps=2, refined=loss == "regularised", learning_rate=1e-3)
    train_dpo(run)
    margins = history(run.out, "rewards/margins")
    assert margins[-1] > margins[0] == pytest.approx(0, abs=1e-3)


def test_an_adapter_needs_no_copy_and_is_merged(make_run) -> None:
    pytest.importorskip("peft")
    from playhead.agent.policies.loading import LoadOptions, load_checkpoint
    from playhead.train.dpo import train_dpo
    from playhead.train.sft_run import LANGUAGE_LINEARS

    run = make_run(steps=3, adapter={"r": 4, "lora_alpha": 8, "target_modules": LANGUAGE_LINEARS}, learning_rate=1e-2)
    told = train_dpo(run)
    assert history(run.out, "rewards/margins")[-1] > 0
    load_checkpoint(told["checkpoint"], "cpu", LoadOptions())
    assert not list(run.checkpoint_dir.glob("adapter*"))


def test_a_stopped_run_goes_on_as_if_it_had_not_been(make_run) -> None:
    from playhead.train.dpo import last_state, train_dpo

    whole, parts = make_run("whole", steps=4, measure_every=2), make_run("parts", steps=4, measure_every=2)
    train_dpo(whole)
    train_dpo(parts)
    state = parts.state_dir / "checkpoint-4"
    for file in sorted(state.iterdir()):
        file.unlink()  # as if it had been killed after step 2
    state.rmdir()
    assert last_state(parts.state_dir).name == "checkpoint-2"
    train_dpo(parts)
    assert history(parts.out, "loss") == pytest.approx(history(whole.out, "loss"), abs=1e-5)


def missing_frame(record: dict) -> str:
    return json.dumps(record).replace('"sha256": "', '"sha256": "0')


def other_tokens(record: dict) -> str:
    record["turns"][0]["context_ids"].insert(0, 10**6)
    return json.dumps(record)


def images_less(record: dict) -> str:
    record["turns"][0] |= {"context_frames": [], "context_messages": []}
    return json.dumps(record)


def mask_too_short(record: dict) -> str:
    record["turns"][0]["completion"]["logprobs"] = [-1.0]
    return json.dumps(record)


BAD = {
    "not in the frame store": missing_frame,
    "recorded with another": other_tokens,
    "image placeholders do not fit": images_less,
    "log-probs for": mask_too_short,
    "schema version 99": lambda record: json.dumps(record | {"schema_version": 99}),
    "not JSON": lambda record: json.dumps(record)[:-9],  # cut by a full disk
}


def spoilt(played: Path, folder: Path, line: int, spoil) -> Path:
    """The groups of `played` with one record spoilt."""
    lines = (played / "trajectories.jsonl").read_text().splitlines()
    lines[line] = spoil(json.loads(lines[line]))
    folder.mkdir()
    (folder / "frames").symlink_to(played / "frames")
    (folder / "trajectories.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("message", BAD)
def test_a_bad_record_is_refused_by_name_before_a_model_is_loaded(
    make_run, played, tmp_path, monkeypatch, message
) -> None:
    from playhead.train import dpo

    data = spoilt(played, tmp_path / "bad", 4, BAD[message])
    monkeypatch.setattr(dpo, "load_checkpoint", lambda *_: pytest.fail("a model was loaded"))
    run = replace(make_run(), data=(data,))
    with pytest.raises(DataError, match=rf"trajectories.jsonl:5: .*{message}"):
        dpo.train_dpo(run)
    assert not run.out.exists()
    made, skipped = dpo._pairs(replace(run, skip_bad=True), dpo.load_renderer(run.init))
    assert len(made.pairs) == 5 and len(skipped) == 1 and message in skipped[0]


def test_bad_records_are_skipped_and_counted_where_asked_and_those_left_out_anyway_are_no_reason_to_stop(
    checkpoint, played, tmp_path, capsys
) -> None:
    data = spoilt(played, tmp_path / "bad", 4, missing_frame)
    args = ["train", "dpo", "--data", str(data), "--init", str(checkpoint), "--out", str(tmp_path / "run")]
    args += ["--steps", "1", "--held-out-every", "0", "--batch", "2", "--json"]
    assert cli(args) != 0
    said = capsys.readouterr().err
    assert "bad/trajectories.jsonl:5: trajectory t2.True.1 shows a frame" in said.replace("\n", "")
    assert cli([*args, "--skip-bad"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["trained"], told["bad_records_skipped"], told["groups_without_a_pair"]) == (5, 1, 1)
    assert json.loads((tmp_path / "run" / "pairs.json").read_text())["bad_records_skipped"] == 1

    failed = spoilt(played, tmp_path / "failed", 4, lambda r: missing_frame(r | {"error": "the video is gone"}))
    assert cli([*args, "--data", str(failed), "--skip-bad", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"]["failed"] == 1


def test_a_folder_of_another_run_and_data_without_pairs_are_refused(make_run, tmp_path, played) -> None:
    from playhead.train.dpo import train_dpo

    run = make_run(steps=1, measure_every=1)
    train_dpo(run)
    with pytest.raises(DataError, match="another learning_rate"):
        train_dpo(replace(run, learning_rate=1e-4))
    with pytest.raises(DataError, match="holds a run already"):
        train_dpo(run, resume=False)
    with pytest.raises(DataError, match=r"no pair to train on \(6 groups, 6 pairs too long"):
        train_dpo(make_run("short", max_tokens=10))
    with pytest.raises(ModelError, match="TRL refuses"):
        train_dpo(make_run("typo", trainer={"learning_rat": 1}))
    with pytest.raises(ValueError, match="must be positive"):
        make_run(steps=-1)


def test_the_command_counts_pairs_before_it_trains(checkpoint, played, tmp_path, capsys) -> None:
    args = ["train", "dpo", "--data", str(played), "--init", str(checkpoint), "--out", str(tmp_path / "run")]
    assert cli([*args, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["by_reason"]["right over wrong"] == 6
    assert not (tmp_path / "run").exists()
    assert cli([*args, "--reasons", "fast", "--dry-run"]) == 2
    assert "take some of right, grounded, cheap" in capsys.readouterr().err
    assert cli([*args, "--steps", "1", "--held-out-every", "0", "--batch", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trained"] == 6

"""What a supervised run is made of: the plan of its batches, the weights of its loss, its data, its value. No trainer."""

import json
from dataclasses import replace
from pathlib import Path

import playhead
import pytest
from playhead.agent.renderers.qwen3vl import Qwen3VLRenderer
from playhead.cli import run as cli
from playhead.core.errors import DataError
from playhead.train.episodes import read_episodes
from playhead.train.packing import in_order, plan
from playhead.train.recipes import SFT_RECIPES, recipe
from playhead.train.samples import TrainingSample
from playhead.train.weights import LossWeights, Weigher

LENGTHS = (5, 30, 7, 12, 100, 8, 9, 31)


@pytest.fixture(scope="module")
def words(checkpoint) -> Qwen3VLRenderer:
    return Qwen3VLRenderer.from_checkpoint(checkpoint)


def test_a_plan_is_its_seed_and_every_pass_has_every_sample_once():
    batches = plan(LENGTHS, 60, 2, seed=1)
    assert batches == plan(LENGTHS, 60, 2, seed=1) != plan(LENGTHS, 60, 2, seed=2)
    seen = [i for b in batches for i in b]
    assert sorted(seen) == sorted([*range(8), *range(8)])
    for batch in batches:
        assert len(batch) == 1 or max(LENGTHS[i] for i in batch) * len(batch) <= 60
    assert (4,) in batches  # longer than the budget: alone
    packed = in_order(LENGTHS, 60, packed=True)
    assert packed[0] == (0, 2, 5, 6, 3) and sorted(i for b in packed for i in b) == list(range(8))
    assert sum(len(b) for b in plan(LENGTHS, 60, 0.5, seed=1)) == 4
    with pytest.raises(ValueError, match="must be positive"):
        plan((), 60, 1, seed=1)


@pytest.mark.parametrize(("passes", "share", "steps"), [(1.0, 1, 9), (1.5, 2, 7), (0.5, 1, 4), (2.0, 4, 5), (12.0, 3, 36)])
def test_passes_say_how_many_steps(passes, share, steps):
    """Nine samples, each a batch: a step takes `share` of them, and the last one is filled up from one more pass."""
    from types import SimpleNamespace

    from playhead.train.sft import _plan

    run = recipe("embedded_cpu")(init="x", data=[Path("d")], out=Path("o"))
    args = SimpleNamespace(gradient_accumulation_steps=share, world_size=1, seed=3)
    batches, planned = _plan(replace(run, passes=passes, batch_tokens=10), args, [10] * 9)  # type: ignore[arg-type]
    assert (planned, len(batches)) == (steps, steps * share)
    seen = [batches.count((i,)) for i in range(9)]
    assert max(seen) - min(seen) <= 1  # none is seen twice more often than another
    (fewer, fixed) = _plan(replace(run, steps=2, batch_tokens=10), args, [10] * 9)  # type: ignore[arg-type]
    assert (len(fewer), fixed) == (2 * share, 2)


def sample_of(renderer, text: str, before: str = "user") -> TrainingSample:
    head, said = renderer.encode(before), renderer.encode(text)
    ids = head + said
    mask = (0,) * len(head) + (1,) * len(said)
    return TrainingSample(
        id="s", kind="k", token_ids_T=ids, loss_mask_T=mask, logprobs_T=(0.0,) * len(ids), frames_F=(), turn_ends_K=(len(ids),)
    )


def test_weights_by_part_by_word_and_by_what_stands_before(words):
    text = "<think>a b</think>\n<tool_call>\n{}\n</tool_call>\n<answer>x;y</answer>"
    sample = sample_of(words, text)
    weigh = Weigher(LossWeights(thought=2.0, call=3.0, answer=5.0, words={"x": 7.0}, after={";": 11.0}), words)
    weighed = weigh(sample)
    pieces = [(words.decode([t]), w) for t, w in zip(weighed.token_ids_T, weighed.weights_T, strict=True)]
    said = [(p, w) for p, w in pieces if w]
    assert "".join(p for p, _ in said) == text
    assert [w for p, w in said if p in ("<think>", "</think>")] == [2.0, 2.0]
    assert [w for p, w in said if p in ("<tool_call>", "</tool_call>")] == [3.0, 3.0]
    assert next(w for p, w in said if p in ("{}", "{")) == 3.0
    assert dict(said)["x"] == 35.0 and dict(said)["y"] == 55.0
    assert all(w == 0 for _, w in pieces[: -len(said)])
    plain = Weigher(LossWeights(), words)(sample)
    assert plain.weights_T == tuple(float(m) for m in sample.loss_mask_T)
    (open_thought,) = {w for w in weigh(sample_of(words, "<think>never ends")).weights_T if w}
    assert open_thought == 2.0


def test_weights_that_make_no_sense_are_refused(words):
    with pytest.raises(ValueError, match="negative"):
        LossWeights(thought=-1.0)
    with pytest.raises(DataError, match="not one; name single tokens"):
        Weigher(LossWeights(words={"several words here": 2.0}), words)


BAD = {
    "another schema": (lambda d: d | {"schema_version": 99}, "schema version 99"),
    "a frame too few": (
        lambda d: d | {"turns": [d["turns"][0] | {"context_frames": [], "context_messages": []}, *d["turns"][1:]]},
        "image placeholders do not fit",
    ),
    "no pixels": (lambda d: json.loads(json.dumps(d).replace('"sha256": "', '"sha256": "0')), "not in the frame store"),
    "other tokens": (
        lambda d: d | {"turns": [d["turns"][0] | {"context_ids": [10**6, *d["turns"][0]["context_ids"]]}, *d["turns"][1:]]},
        "recorded with another",
    ),
    "not sampled": (lambda d: d | {"exact": False}, "exact=False"),
    "no JSON": (lambda d: None, "not JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_refused_by_name_or_skipped_and_counted(recorded_set, words, tmp_path, name):
    spoil, message = BAD[name]
    lines = (recorded_set / "trajectories.jsonl").read_text().splitlines()
    spoilt = spoil(json.loads(lines[3]))
    lines[3] = "{not json" if spoilt is None else json.dumps(spoilt)
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "frames").symlink_to(recorded_set / "frames")
    (folder / "trajectories.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"trajectories.jsonl:4.*{message}"):
        read_episodes([folder], words)
    left = read_episodes([folder], words, skip_bad=True)
    assert len(left.samples) == 11 and len(left.skipped) == 1 and message in left.skipped[0]


def test_folders_together_keep_their_ids_apart(recorded_set, words, tmp_path):
    both = read_episodes([recorded_set, recorded_set], words)
    assert len({s.id for s in both.samples}) == 24
    train, held_out = both.split(5)
    assert len(train) == 19 and len(held_out) == 5 and not {s.id for s in train} & {s.id for s in held_out}
    with pytest.raises(DataError, match="no such file of trajectories"):
        read_episodes([tmp_path], words)


@pytest.mark.parametrize("name", SFT_RECIPES)
def test_a_recipe_is_a_value_that_can_be_shown(name):
    run = recipe(name)(init="somewhere", data=[Path("d")], out=Path("o"))
    assert json.loads(json.dumps(run.plain()))["recipe"] == name
    with pytest.raises(ValueError, match="no recipe 'other'; there are embedded_cpu"):
        recipe("other")
    with pytest.raises(ValueError, match="give an adapter"):
        replace(run, adapter=None, four_bit=True)
    with pytest.raises(ValueError, match="held_out_every"):
        replace(run, held_out_every=1)


def test_the_command_line_changes_a_recipe(tmp_path, capsys):
    where = ["train", "sft", "--data", str(tmp_path), "--out", str(tmp_path / "o"), "--dry-run"]
    assert cli([*where, "--steps", "7", "--set", "learning_rate=1e-4", "--set", "batch_tokens=100", "--seed", "3"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["steps"], shown["batch_tokens"], shown["init"][-3:]) == (7, 100, "vlm")
    assert shown["trainer"]["learning_rate"] == 1e-4 and shown["trainer"]["seed"] == 3
    for flags, message in (
        (["--recipe", "nothing"], "no recipe 'nothing'"),
        (["--set", "learning_rate"], "write NAME=VALUE"),
        (["--set", "weights=3"], "has no single value"),
        (["--four-bit"], "give an adapter"),
    ):
        assert cli([*where, *flags]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(("name", "kind"), [("ddp", "MULTI_GPU"), ("fsdp2", "FSDP"), ("deepspeed_zero3", "DEEPSPEED")])
def test_accelerate_reads_the_configs_that_the_docs_name(name, kind):
    """Read, not run: they are for GPUs. What FSDP2 wraps are layers that the families really have."""
    from accelerate.commands.config.config_args import load_config_from_file
    from transformers.models.qwen3_vl import modeling_qwen3_vl

    path = Path(playhead.__file__).parent / "train" / "accelerate" / f"{name}.yaml"
    config = load_config_from_file(str(path))
    assert str(config.distributed_type).endswith(kind) and config.num_processes == 8
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
        for layer in config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(","):
            assert hasattr(modeling_qwen3_vl, layer)
    if name == "deepspeed_zero3":
        assert config.deepspeed_config["zero_stage"] == 3

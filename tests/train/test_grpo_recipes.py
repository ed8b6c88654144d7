"""Recipes of GRPO as values: what `world_rl` asks for, films of several sorts, and what of a run's tasks can be rewarded."""

from dataclasses import replace

import pytest
from playhead.core.errors import DataError
from playhead.core.tasks import read_tasks, write_tasks
from playhead.world.questions import ALL_KINDS, KINDS

pytest.importorskip("trl")
pytestmark = pytest.mark.timeout(600)
"""The first test of all imports torch and trl, which takes a busy machine minutes."""


def test_world_rl_asks_ever_new_questions_at_a_rate_that_falls_to_nothing(tmp_path):
    from playhead.train.grpo.run import find_recipe

    recipe = find_recipe("world_rl")(tmp_path, model="folder", seed=3)
    plan, args = recipe.plan, recipe.plan.args
    assert (plan.group_size, plan.groups, plan.refills, args.seed) == (8, 4, 0, 3)
    assert (args.temperature, args.learning_rate, args.lr_scheduler_type.value) == (1.0, 1e-4, "linear")
    assert {p.reward.name: p.weight for p in plan.rubric.parts}["cost_frames"] == 0.3
    assert not plan.curriculum.by_difficulty
    assert {k for films in recipe.films for k in films.kinds} == set(ALL_KINDS)
    asked = sum(films.videos * films.draws * len(films.kinds) for films in recipe.films)
    assert asked >= args.max_steps * plan.groups, "each question is asked once or less"
    given = find_recipe("world_rl")(tmp_path, steps=7, rate=1e-5, frames=0.1, refills=2).plan
    assert (given.args.max_steps, given.args.learning_rate, given.refills) == (7, 1e-5, 2)


def test_films_of_several_sorts_are_one_set_of_tasks(world, tmp_path):
    """Films that are there are not made again; what has no known answer, or is held out, is not trained on."""
    from playhead.train.grpo.run import Films, training_tasks

    tasks = [replace(t, video=str(t.video)) for t in read_tasks(world)]
    plain, rich = Films(videos=1, minutes=(5.0,), seed=1), Films(videos=1, minutes=(5.0,), seed=2, kinds=ALL_KINDS)
    unknown = replace(tasks[3], answer=None, evidence=())
    for films, some in ((plain, tasks[:2]), (rich, [tasks[2], unknown])):
        folder = tmp_path / str(films.seed)
        folder.mkdir()
        write_tasks(folder / "tasks.jsonl", some)
    said: list[str] = []
    found = training_tasks((plain, rich), tmp_path, None, said.append)
    assert [t.id for t in found] == [t.id for t in tasks[:3]] and not said
    assert [t.id for t in training_tasks((plain, rich), tmp_path, tmp_path / "1", said.append)] == [t.id for t in tasks[:2]]
    write_tasks(tmp_path / "2" / "tasks.jsonl", [replace(tasks[2], meta={**tasks[2].meta, "seed": "7000000"})])
    with pytest.raises(DataError, match="held out"):
        training_tasks((plain, rich), tmp_path, None, said.append)
    write_tasks(tmp_path / "2" / "tasks.jsonl", [unknown])
    with pytest.raises(DataError, match="nothing can be rewarded"):
        training_tasks((rich,), tmp_path, None, said.append)


def test_films_that_are_lacking_are_made(tmp_path):
    from playhead.train.grpo.run import Films, training_tasks

    said: list[str] = []
    films = Films(videos=1, minutes=(4.0,), seed=11)
    found = training_tasks((films,), tmp_path, None, said.append)
    assert {t.kind for t in found} == set(KINDS) and len(said) == 1
    assert (tmp_path / "11" / "videos" / "world-11-240s.mp4").is_file()
    with pytest.raises(DataError, match="held out"):
        replace(films, seed=7_000_000)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"beta": "abc"}, "beta='abc': input should be a valid number"),
        ({"frames": "abc"}, "frames='abc': input should be a valid number"),
        ({"num_generations": 2.5}, "num_generations=2.5: input should be a valid integer"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"temperature": 0}, "temperature=0.0: must be above 0"),
        ({"loss_type": "foo"}, "loss_type='foo': take one of grpo"),
        ({"refills": -1}, "refills=-1: must be 0 or more"),
        ({"haze": 2}, "haze=2: must be from 0 (clear) to below 1"),
        ({"correction": "some"}, "take one of none, token, sequence, clip"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_values_that_a_recipe_cannot_have_are_named_before_anything_is_made(tmp_path, capsys, given, said):
    from playhead.cli.app import run

    (name, value), *_ = given.items()
    out = tmp_path / "run"
    assert run(["train", "grpo", "--recipe", "world_rl", "--out", str(out), "--set", f"{name}={value}"]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not out.exists()


def test_the_command_line_reaches_the_variants(tmp_path):
    from playhead.train.grpo.advantages import Scale
    from playhead.train.grpo.plan import Correction
    from playhead.train.grpo.run import make_recipe

    given = {"scale_rewards": "none", "credit": 0.5, "correction": "token", "refills": 2, "beta": 0, "model": "m", "seed": 1}
    plan = make_recipe("world_rl", tmp_path, given).plan
    assert plan.scale is Scale.NONE and plan.correction is Correction.TOKEN and plan.refills == 2
    assert plan.credit is not None and plan.credit.weight == 0.5 and plan.args.beta == 0.0
    assert make_recipe("embedded_cpu", tmp_path, {}).plan.scale is Scale.GROUP


def test_a_folder_that_holds_another_run_is_refused(tmp_path):
    from playhead.train.claim import claim
    from playhead.train.grpo.run import _told, make_recipe

    def take(run, begun=True, **how):
        with claim(tmp_path, run, begun=begun, **how):
            pass

    told = _told(make_recipe("world_rl", tmp_path, {"model": "a"}), None)
    take(told, begun=False)
    longer = _told(make_recipe("world_rl", tmp_path, {"model": "a", "steps": 99, "save_steps": 5}), None)
    take(longer)
    with claim(tmp_path, told, begun=True), pytest.raises(DataError, match="another process writes this run now"):
        take(told)
    for given, said in (({"model": "b"}, "another model"), ({"model": "a", "frames": 0}, "another reward")):
        with pytest.raises(DataError, match=said):
            take(_told(make_recipe("world_rl", tmp_path, given), None))
    with pytest.raises(DataError, match="another data"):
        take(_told(make_recipe("world_rl", tmp_path, {"model": "a"}), tmp_path))
    with pytest.raises(DataError, match="holds a run already"):
        take(told, resume=False)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DataError, match="does not say which run it is of"):
        take(told)


@pytest.mark.parametrize("train_vision", [False, True])
def test_the_vision_tower_stands_still_or_is_trained(train_vision, world, tmp_path):
    """And where it is trained, the sampler sees with the newest one: frames it saw before are encoded again after an update."""
    from playhead.agent.embedded import checkpoint_dir
    from playhead.train.grpo.run import carry_out, make_recipe
    from safetensors.torch import load_file

    few = {"steps": 3, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "num_generations": 2}
    given = {**few, "temperature": 1.6, "rate": 1e-3, "warmup_steps": 0, "train_vision": train_vision}
    trainer = carry_out(make_recipe("embedded_cpu", tmp_path, given), tmp_path, world, lambda line: None)
    steps = trainer.records.steps
    assert len(steps) == 3 and max(step["logprob_gap/max"] for step in steps) < 1e-3
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint_dir(), tmp_path / "final"))
    changed = {name for name, tensor in after.items() if not tensor.equal(before[name].to(tensor.dtype))}
    assert changed and any("vision_model" in name or "visual" in name for name in changed) == train_vision


def test_make_model_ends_as_the_model_that_ships_did(tmp_path, monkeypatch):
    """Gold seconds are not paid for."""
    from playhead.train import __main__ as stages
    from playhead.train.grpo import run

    seen = []
    monkeypatch.setattr(run, "carry_out", lambda recipe, out: seen.append(recipe))
    stages.rl(tmp_path, smoke=False, device="cpu")
    (recipe,) = seen
    assert [p.reward.name for p in recipe.plan.rubric.parts] == ["answer", "evidence_events", "format", "cost_frames"]
    assert recipe.model == str(tmp_path / "practice" / "checkpoint") and recipe.encoder == f"local-dir:{tmp_path / 'openclip'}"

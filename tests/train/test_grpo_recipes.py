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

"""Advantages, curriculum, guards, figures, batches: arithmetic, without a model."""

import json
import math
from dataclasses import replace

import pytest
from playhead.core.errors import DataError
from playhead.train.grpo.advantages import (
    Scale,
    TurnCredit,
    evidence_gains,
    group_advantages,
    has_signal,
    turn_advantages,
)
from playhead.train.grpo.curriculum import Curriculum, CurriculumOptions
from playhead.train.grpo.figures import Tally
from playhead.train.grpo.guards import Guards, Limits, RunStopped
from playhead.train.rollout import Failure, Group


def test_advantages_by_hand():
    groups = [[1.0, 0.0, 0.0, 1.0], [3.0, 1.0]]
    plain = group_advantages(groups, Scale.NONE)
    assert plain == [[0.5, -0.5, -0.5, 0.5], [1.0, -1.0]]
    scaled = group_advantages(groups, Scale.GROUP)
    assert scaled[0][0] == pytest.approx(0.5 / (math.sqrt(1 / 3) + 1e-4))
    assert scaled[1][0] == pytest.approx(1 / (math.sqrt(2) + 1e-4))
    assert group_advantages(groups, Scale.BATCH, batch_std=2.0)[1] == pytest.approx([1 / 2.0001, -1 / 2.0001])
    for scale in Scale:
        assert all(abs(sum(a)) < 1e-9 for a in group_advantages(groups, scale))


def test_signal():
    assert has_signal([0.0, 1.0]) and not has_signal([0.3, 0.3 + 1e-9]) and not has_signal([1.0])


def test_credit_goes_to_the_turn_that_found_it_and_those_before():
    credit = TurnCredit(weight=1.0)
    found, not_found = turn_advantages([0.0, 0.0], [[0.0, 1.0, 0.0], [0.0, 0.0]], credit)
    assert found == [0.5, 0.5, 0.0] and not_found == [-0.5, -0.5]
    assert turn_advantages([2.0], [[1.0, 1.0]], TurnCredit(weight=0.0)) == [[2.0, 2.0]]
    near, _ = turn_advantages([0.0, 0.0], [[0.0, 1.0], [0.0, 0.0]], TurnCredit(weight=1.0, discount=0.5))
    assert near == [0.25, 0.5]
    with pytest.raises(ValueError, match="discount"):
        TurnCredit(discount=2.0)


def test_evidence_gains_count_what_is_new(make_task, make_trajectory):
    made = make_trajectory(make_task())  # the search shows 1 s of 100-106, the zoom all of it
    assert evidence_gains(made) == pytest.approx([1 / 6, 5 / 6, 0.0])


def tasks_of(make_task, count=20):
    return [make_task(kind=("motion", "digit")[i % 2], number=i) for i in range(count)]


def test_what_is_neither_easy_nor_hard_is_asked_most(make_task):
    tasks = tasks_of(make_task)
    curriculum = Curriculum(tasks, seed=1)
    for _ in range(20):
        curriculum.note((t.id, 1.0 if i < 10 else 0.5) for i, t in enumerate(tasks))
    drawn = [t.id for _ in range(60) for t in curriculum.draw(4)]
    half = {t.id for t in tasks[10:]}
    assert sum(i in half for i in drawn) > 0.75 * len(drawn)
    assert set(drawn) - half, "none is ever lost sight of"


def test_a_resumed_curriculum_draws_the_same(make_task):
    tasks = tasks_of(make_task)
    for options in (CurriculumOptions(), CurriculumOptions(by_difficulty=False)):
        one, other = Curriculum(tasks, 3, options), Curriculum(tasks, 3, options)
        one.draw(5)
        one.note([(tasks[0].id, 1.0), (tasks[1].id, 0.25)])
        other.load(json.loads(json.dumps(one.state())))
        assert [t.id for _ in range(4) for t in one.draw(3)] == [t.id for _ in range(4) for t in other.draw(3)]
    assert len({t.id for t in Curriculum(tasks, 3).draw(20)}) == 20
    assert len(Curriculum(tasks[:3], 3).draw(7)) == 7


def test_every_task_once_a_pass(make_task):
    tasks = tasks_of(make_task, 6)
    curriculum = Curriculum(tasks, 0, CurriculumOptions(by_difficulty=False))
    drawn = [t.id for _ in range(4) for t in curriculum.draw(3)]
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == sorted(t.id for t in tasks)
    with pytest.raises(DataError, match="different ids"):
        Curriculum([tasks[0], tasks[0]], 0)


def run(guards, steps, **figures):
    for step in range(1, steps + 1):
        guards.after_rollouts(
            step, {"rollouts/sound": 8, "calls": 2.0, "answered": 1.0, "reward/format": 0.1, **figures}
        )


def test_guards_let_a_good_run_pass():
    guards = Guards(Limits(patience=3))
    run(guards, 20)
    guards.before_update(1, 1e-6, True)
    guards.gradient(1, 0.3)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"calls": 0.1}, "stopped calling tools"),
        ({"answered": 0.1}, "no longer ends in an answer"),
        ({"reward/format": 0.001}, "lost its format"),
    ],
)
def test_guards_stop_a_collapse(figures, said):
    guards = Guards(Limits(patience=3))
    run(guards, 5)
    with pytest.raises(RunStopped, match=said):
        run(guards, 5, **figures)


def test_guards_do_not_ask_for_what_never_was():
    run(Guards(Limits(patience=2)), 10, **{"calls": 0.0, "answered": 0.0, "reward/format": 0.0})


def test_a_resumed_run_is_held_to_its_beginning():
    before, after = Guards(Limits(patience=3)), Guards(Limits(patience=3))
    run(before, 5)
    after.load(json.loads(json.dumps(before.state())))
    with pytest.raises(RunStopped, match="stopped calling tools"):
        run(after, 3, calls=0.1)
    after.load({})


def test_guards_stop_what_is_broken():
    guards = Guards()
    with pytest.raises(RunStopped, match=r"differ by 0\.2 nats"):
        guards.before_update(4, 0.2, True)
    for gap, finite in ((0.0, False), (float("nan"), True)):
        with pytest.raises(RunStopped, match="not a number"):
            guards.before_update(4, gap, finite)
    with pytest.raises(RunStopped, match="gradient"):
        guards.gradient(4, float("inf"))
    with pytest.raises(RunStopped, match="all rollouts failed"):
        guards.after_rollouts(4, {"rollouts/sound": 0})
    with pytest.raises(ValueError, match="patience"):
        Limits(patience=0)


def test_figures_of_several_processes_add_up(make_task, make_trajectory):
    right = replace(make_trajectory(make_task()), reward_parts={"answer": 1.0, "cost": -0.5})
    wrong = replace(make_trajectory(make_task(), said="right", refused=1), reward_parts={"answer": 0.0, "cost": -0.5})
    tallies = []
    for made in (right, wrong):
        tally = Tally(seconds=1.0 + len(tallies))
        lost = Failure(rollout_id="r", task_id="t", error="gone")
        tally.add_groups([Group(task=made.task, trajectories=(made,), failures=(lost,))])
        tallies.append(tally)
    figures = (tallies[0] + tallies[1]).figures()
    assert figures["reward"] == 0.0 and figures["reward/std"] == pytest.approx(0.5)
    assert figures["reward/answer"] == 0.5 and figures["reward/cost"] == -0.5 and figures["right"] == 0.5
    assert figures["rollouts/sound"] == figures["rollouts/failed"] == 2.0
    assert figures["calls/temporal_zoom"] == 1.5 and figures["calls_failed/temporal_zoom"] == pytest.approx(1 / 3)
    assert figures["stop/answered"] == figures["answered"] == figures["evidence"] == 1.0
    assert figures["seconds/rollout"] == 2.0


def test_the_mean_over_uneven_batches_is_the_mean_over_rows():
    from playhead.train.grpo.batches import row_factor, split

    rows = [1.0, 2.0, 3.0, 4.0, 5.0]
    parts = [rows[:2], rows[2:3], rows[3:], []]
    total = sum(
        sum(r * row_factor("grpo", len(p), len(parts), len(rows)) for r in p) / max(1, len(p)) for p in parts
    ) / len(parts)
    assert total == pytest.approx(sum(rows) / len(rows))
    assert row_factor("dapo", 2, 4, 5) == 1.0
    assert [len(p) for p in split([], 3)] == [0, 0, 0]


def test_the_picture(tmp_path):
    from PIL import Image
    from playhead.train.grpo.chart import draw_run, running_mean

    draw_run(tmp_path / "run.png", [{"step": 1, "reward": 0.1}])
    assert not (tmp_path / "run.png").exists(), "one point is no curve"
    draw_run(
        tmp_path / "run.png", [{"step": i, "reward": 0.1 * i, "entropy": 1.0, "kl": math.nan} for i in range(1, 5)]
    )
    with Image.open(tmp_path / "run.png") as image:
        assert image.size[0] == 960
    assert running_mean([1.0, 3.0, 5.0], 2) == [1.0, 2.0, 4.0]

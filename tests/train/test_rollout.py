"""Rollouts: groups, seeds, and failures that stay with the rollout that failed."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest
from playhead.core.aio import run_until_done
from playhead.core.errors import ModelError
from playhead.core.nouns import Completion
from playhead.train.rollout import check_exact, rollout_groups, rollout_seed


class Scripted:
    """An agent whose episodes are made by hand; `odd` says what goes wrong with which rollout of a task."""

    policy = SimpleNamespace(name="scripted", exact=True)

    def __init__(self, make_trajectory, odd=None):
        self.make, self.odd, self.seeds, self.now, self.most = make_trajectory, odd or {}, [], 0, 0

    async def arun(self, task, *, seed, run_id, group_id):
        self.seeds.append((task.id, seed, run_id, group_id))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0)
            what = self.odd.get(int(run_id.rsplit("-", 2)[1]))
            if what == "raises":
                raise OSError("disk gone\nand more")
            if what == "hangs":
                await asyncio.sleep(3600)
            made = replace(self.make(task), id=run_id, group_id=group_id)
            if what == "error":
                return replace(made, error="think: server gone")
            if what == "inexact":
                return replace(made, exact=False)
            if what == "silent":
                forced = Completion(token_ids=(1,), text="x", forced=True)
                return replace(made, turns=tuple(replace(t, completion=forced) for t in made.turns))
            return made
        finally:
            self.now -= 1


def play(agent, tasks, size, **how):
    return run_until_done(rollout_groups(agent, tasks, size, seed=7, **how))


def test_groups_in_the_order_of_the_tasks(make_task, make_trajectory):
    tasks = [make_task(number=i) for i in range(3)]
    agent = Scripted(make_trajectory)
    groups = play(agent, tasks, 2)
    assert [g.task.id for g in groups] == [t.id for t in tasks]
    assert [len(g.trajectories) for g in groups] == [2, 2, 2]
    assert len({seed for _, seed, _, _ in agent.seeds}) == 6
    again = Scripted(make_trajectory)
    play(again, tasks, 2)
    assert again.seeds == agent.seeds


def test_a_failure_is_left_out_and_counted(make_task, make_trajectory):
    odd = {0: "raises", 1: "error", 2: "inexact", 3: "silent", 4: "hangs"}
    (group,) = play(Scripted(make_trajectory, odd), [make_task()], 6, limit_s=0.5)
    assert len(group.trajectories) == 1
    errors = " | ".join(f.error for f in group.failures)
    for said in ("OSError: disk gone", "server gone", "not known to be those", "nothing was sampled", "no end after"):
        assert said in errors
    assert "and more" not in errors


def test_no_more_at_once_than_allowed(make_task, make_trajectory):
    agent = Scripted(make_trajectory)
    play(agent, [make_task(number=i) for i in range(4)], 3, at_once=2)
    assert agent.most == 2


def test_a_policy_that_is_not_exact_is_refused_by_name(make_task, make_trajectory):
    agent = Scripted(make_trajectory)
    agent.policy = SimpleNamespace(name="http://host/v1#big", exact=False)
    with pytest.raises(ModelError, match="http://host/v1#big"):
        play(agent, [make_task()], 2)
    assert not agent.seeds
    with pytest.raises(ModelError, match="tokens and log-probs"):
        check_exact(agent.policy)


def test_values_that_make_no_sense(make_task, make_trajectory):
    for how in ({"limit_s": 0.0}, {"at_once": 0}):
        with pytest.raises(ValueError, match="must be 1 or more"):
            play(Scripted(make_trajectory), [make_task()], 2, **how)


def test_seeds_are_31_bits_and_their_own():
    seeds = {rollout_seed(s, t, n) for s in range(3) for t in ("a", "b") for n in range(5)}
    assert len(seeds) == 30 and all(0 <= s < 1 << 31 for s in seeds)


def test_inside_a_running_loop(make_task, make_trajectory):
    async def notebook():
        return play(Scripted(make_trajectory), [make_task()], 1)

    assert len(asyncio.run(notebook())[0].trajectories) == 1

"""The verl recipe against verl's own workers where verl is installed, and against a stand-in of them: rows, tokens, masks,
images, whole turns, and what a failed episode does to its batch."""

import asyncio
import importlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import verl_bench
from playhead.core.errors import ModelError
from playhead.core.nouns import Completion, FinishReason, StopReason
from playhead.core.policy import GenerateRequest, Sampling
from playhead.core.tasks import read_tasks, write_tasks

pytest.importorskip("datasets")
PARTS = {"answer", "evidence_events", "format", "cost_frames", "acc"}


@pytest.fixture
def recipe():
    with verl_bench.stand_in():
        yield importlib.import_module(verl_bench.RECIPE)


@pytest.fixture(params=["stand-in", "verl"])
def bench(request, world, tmp_path):
    from playhead.agent.embedded import checkpoint_dir

    entry = {"name": "playhead", "_target_": f"{verl_bench.RECIPE}.PlayheadAgentLoop", "rubric": "world"}
    entry |= {"home": str(tmp_path), "tool_names": ["temporal_zoom"]}
    real = request.param == "verl"
    with verl_bench.verl_itself() if real else verl_bench.stand_in():
        make = verl_bench.Verl if real else verl_bench.StandIn
        yield make(checkpoint=checkpoint_dir(), world=world, home=tmp_path, yaml=entry)


def test_rows(make_task, tmp_path):
    from datasets import Dataset
    from playhead.core.codec import from_plain
    from playhead.core.nouns import Task
    from playhead.train.recipes.verl.export import export

    tasks = [make_task(number=i) for i in range(3)]
    write_tasks(tmp_path / "tasks.jsonl", tasks)
    assert export(tmp_path, tmp_path / "tasks.parquet") == 3
    rows = Dataset.from_parquet(str(tmp_path / "tasks.parquet"), cache_dir=str(tmp_path / "cache"))
    assert set(rows.column_names) == {"prompt", "agent_name", "data_source", "ability", "reward_model", "extra_info"}
    back = from_plain(Task, json.loads(rows[1]["extra_info"]["task"]), "row")
    assert back == read_tasks(tmp_path)[1]


def with_logprobs(made):
    """The trajectory as if its policy had said how likely its tokens were."""
    said = [replace(t.completion, logprobs=(-0.5,) * len(t.completion.token_ids)) for t in made.turns]
    return replace(made, turns=tuple(replace(t, completion=c) for t, c in zip(made.turns, said, strict=True)))


def test_parts_of_a_trajectory_and_whole_turns_only(recipe, make_task, make_trajectory):
    made = with_logprobs(make_trajectory(make_task()))
    room = recipe.Limits(prompt=100, response=100)
    parts = recipe.parts_of(made, room, logprobs=True)
    assert parts.prompt + parts.response == list(made.token_ids)
    assert [0] * len(parts.prompt) + parts.mask == list(made.loss_mask)
    assert parts.logprobs == [-0.5 * sampled for sampled in parts.mask] and parts.frames == list(made.frames)
    less = recipe.Limits(prompt=100, response=len(parts.response) - 1)
    short = recipe.parts_of(made, less, logprobs=True)
    assert short.response == parts.response[: len(short.response)] and len(short.response) < less.response
    assert short.frames == list(made.frames)[: len(short.frames)]
    assert len(short.response) == len(short.mask) == len(short.logprobs)


@pytest.mark.parametrize(
    ("change", "room", "reason"),
    [
        ({"error": "the server is gone"}, (100, 100), "the server is gone"),
        ({"turns": (), "stop_reason": StopReason.TIMEOUT}, (100, 100), r"said nothing \(timeout\)"),
        ({"exact": False}, (100, 100), "sampled"),
        ({}, (1, 100), "prompt has 2 tokens, more than rollout.prompt_length=1"),
        ({}, (100, 0), "first turn has 1 tokens, more than rollout.response_length=0"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_by_name(recipe, make_task, make_trajectory, change, room, reason):
    made = replace(with_logprobs(make_trajectory(make_task())), **change)
    with pytest.raises(ModelError, match=reason):
        recipe.parts_of(made, recipe.Limits(prompt=room[0], response=room[1]), logprobs=True)


def test_log_probs_are_never_made_up(recipe, make_task, make_trajectory):
    made, room = make_trajectory(make_task()), recipe.Limits(prompt=100, response=100)
    with pytest.raises(
        ModelError, match=r"turn 0: rollout\.calculate_log_probs is on, and the server gave no log-probs"
    ):
        recipe.parts_of(made, room, logprobs=True)
    assert recipe.parts_of(made, room, logprobs=False).logprobs is None
    assert recipe.parts_of(with_logprobs(made), room, logprobs=False).logprobs is None, "all samples of a batch alike"


@pytest.mark.parametrize("trainer", ["trains", "trains_v0"])
def test_episodes_with_the_agent_and_its_tools(bench, trainer):
    """The real agent on a real film; verl's servers say what an oracle would."""
    seen = getattr(bench, trainer)(2)
    assert seen.status == "finished" and len(seen.scores) == 2 and set(seen.parts) == PARTS
    assert seen.scores == pytest.approx([sum(seen.parts[n][i] for n in PARTS - {"acc"}) for i in range(2)])
    assert seen.scores[0] == pytest.approx(seen.parts["format"][0]) and seen.parts["format"][0] > 0
    for mask, logprobs in zip(seen.masks, seen.logprobs, strict=True):
        assert 0 < sum(mask) < len(mask) and list(logprobs) == [-0.5 * sampled for sampled in mask]
    assert all(pads > 4 * 4 for pads in seen.placeholders), "the tool's frames beside those of the skim"
    assert [n // 4 for n in seen.patches] == list(seen.placeholders), "every placeholder has its part of an image"


@pytest.mark.parametrize("broken", [0, 1])
def test_a_failed_episode_is_a_failed_session(bench, broken):
    """The rest of its group is trained on, and its score is in no mean."""
    seen = bench.trains(3, broken={broken})
    assert seen.status == "failure" and len(seen.scores) == 2 and all(sum(mask) for mask in seen.masks)
    assert set(seen.parts) == PARTS


@pytest.mark.parametrize("broken", [0, 1])
@pytest.mark.parametrize("logprobs", [True, False])
def test_a_failed_episode_does_not_take_a_v0_batch_with_it(bench, broken, logprobs):
    seen = bench.trains_v0(3, broken={broken}, logprobs=logprobs)
    (failed,) = [i for i, mask in enumerate(seen.masks) if not any(mask)]
    assert seen.masks[failed] == (0,) and seen.scores[failed] == 0.0
    assert seen.patches[failed] == seen.placeholders[failed] == 0
    assert set(seen.parts) == PARTS and all(values[failed] == 0.0 for values in seen.parts.values())
    assert (seen.logprobs is not None) == logprobs
    assert sum(score > 0 for score in seen.scores) == 2


def test_a_failed_episode_is_in_the_mean_of_a_v0_group(bench):
    """As docs/rl.md says of that trainer: no token of it is trained on, its group is measured against it."""
    if not bench.real:
        pytest.skip("of verl's own advantages")
    from torch import tensor
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    seen = bench.trains_v0(3, broken={1})
    width = max(len(mask) for mask in seen.masks)
    masks = tensor([[*mask, *[0] * (width - len(mask))] for mask in seen.masks])
    rewards = masks.float() * 0
    rewards[:, 0] = tensor(seen.scores)
    advantages, _ = compute_grpo_outcome_advantage(rewards, masks, [0, 0, 0], norm_adv_by_std_in_grpo=False)
    for score, mask, row in zip(seen.scores, seen.masks, advantages, strict=True):
        expected = score - sum(seen.scores) / 3 if any(mask) else 0.0
        assert row[: len(mask)].tolist() == pytest.approx([expected * bit for bit in mask], abs=1e-6)


@pytest.mark.parametrize("trainer", ["trains", "trains_v0"])
def test_a_server_without_log_probs_where_they_are_wanted(bench, trainer):
    seen = getattr(bench, trainer)(2, mute={0})
    trained = [sum(mask) > 0 for mask in seen.masks]
    assert sum(trained) == 1, "not trained on as if every token had been certain"
    assert all(min(row) == -0.5 for row, kept in zip(seen.logprobs, trained, strict=True) if kept)


@pytest.mark.parametrize("trainer", ["trains", "trains_v0"])
def test_no_log_probs_at_all_where_none_are_wanted(bench, trainer):
    seen = getattr(bench, trainer)(2, logprobs=False)
    assert seen.logprobs is None and all(sum(mask) for mask in seen.masks)


def test_a_prompt_longer_than_verl_has_room_for(bench):
    bench = replace(bench, prompt=8)
    assert bench.trains(1).status == "failure"
    assert bench.trains_v0(2).masks == ((0,), (0,)), "verl pads to one width, and would fall over"


def one_request(manager, renderer):
    from playhead.train.recipes.verl.policy import VerlPolicy

    policy = VerlPolicy(manager, renderer, SimpleNamespace(), {})
    request = GenerateRequest(session="s", token_ids=(1,), frames=(), messages=(), sampling=Sampling())
    (said,) = asyncio.run(policy.generate([request]))
    assert isinstance(said, Completion)
    return policy, said


def test_a_server_that_fails_is_a_failed_completion():
    class Broken:
        async def generate(self, **kwargs):
            raise ConnectionError("server gone")

    _, said = one_request(Broken(), SimpleNamespace())
    assert said.finish_reason is FinishReason.ERROR and "server gone" in said.text


def test_a_sampled_placeholder_has_no_frame_behind_it():
    class Odd:
        async def generate(self, **kwargs):
            return verl_bench.TokenOutput(token_ids=[5, 7], log_probs=[-1.0, -1.0])

    _, said = one_request(Odd(), SimpleNamespace(suppressed_token_ids=(7,)))
    assert said.finish_reason is FinishReason.ERROR and "placeholder" in said.text


def test_a_policy_knows_the_versions_of_the_weights_that_spoke():
    class Newer:
        async def generate(self, **kwargs):
            return verl_bench.TokenOutput(token_ids=[5], extra_fields={"min_global_steps": 3, "max_global_steps": 4})

    renderer = SimpleNamespace(suppressed_token_ids=(), stop_token_ids=(5,), completion_text=lambda ids: "")
    policy, said = one_request(Newer(), renderer)
    assert policy.versions == {3, 4} and said.logprobs == () and said.exact

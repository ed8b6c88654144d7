"""Thoughts for a given path: the path stays to the byte, only what verifies is kept, and the result is exact for SFT."""

import asyncio
from dataclasses import replace

import path_of_two_calls as by_hand
import pytest
from playhead.agent.policies.scripted import ScriptedPolicy
from playhead.agent.policies.transformers import TransformersPolicy
from playhead.core.frames import FrameStore
from playhead.train.data.thoughts import Follows, Thinker, write_thoughts
from playhead.train.samples import sample_of


@pytest.fixture(scope="module")
def path(tmp_path_factory, renderer):
    return by_hand.path_of_two_calls(FrameStore(tmp_path_factory.mktemp("frames")), renderer)


def think(path, renderer, tools, thinks, follows=None, attempts=2):
    thinker = Thinker(policy=ScriptedPolicy(renderer, thinks, name="strong"), attempts=attempts)
    verifiers = () if follows is None else (Follows(policy=ScriptedPolicy(renderer, follows), tools=tools),)
    return asyncio.run(write_thoughts([path], thinker, renderer, tools, verifiers))


def test_the_path_stays_and_the_thoughts_are_new(path, renderer):
    asked = []

    def say(request):
        asked.append(request)
        return f"<think>Thought {len(asked)} at 97 s.</think>"

    done = think(path, renderer, by_hand.TOOLS, say, lambda r: "<answer>right</answer>")
    (made,) = done.kept
    assert [t.thought for t in made.turns] == [f"Thought {i} at 97 s." for i in (1, 2, 3)]
    for new, old in zip(made.turns, path.turns, strict=True):
        assert new.completion.text.partition("</think>")[2] == old.completion.text.partition("</think>")[2]
        assert (new.tool_calls, new.observations, new.context_messages) == (
            old.tool_calls, old.observations, old.context_messages
        )  # fmt: skip
        assert not new.completion.logprobs
    sample = sample_of(made, renderer, renderer.image_token_id)
    said = renderer.decode([t for t, m in zip(sample.token_ids_T, sample.loss_mask_T, strict=True) if m])
    assert said == "".join(t.completion.text + "<|im_end|>" for t in made.turns)
    assert made.exact and made.answer == path.answer and made.id != path.id and made.model.startswith("strong")
    # Each thought was written from what was seen until then, and nothing later.
    shown = [len(r.frames) for r in asked]
    assert shown == [2, 5, 13] and "temporal_zoom" in asked[1].messages[-1].text


@pytest.mark.parametrize(
    ("thought", "why"),
    [
        ("", "no thought that reads back"),
        ("<think></think>", "no thought that reads back"),
        ("<think>I write <answer>left</answer></think>", "no thought that reads back"),
        ("<think>It ends <|im_end|> here</think>", "no thought that reads back"),
        ("x" * 5000, "no thought that reads back"),
    ],
)
def test_thoughts_that_do_not_read_back_are_lost(path, renderer, thought, why):
    done = think(path, renderer, by_hand.TOOLS, lambda r: thought)
    assert not done.kept and done.lost == {why: 1}


def test_a_second_attempt_may_do(path, renderer):
    tries = []

    def say(request):
        tries.append(request.session)
        return "<answer>" if request.session.endswith(".0") else "Plain words do."

    done = think(path, renderer, by_hand.TOOLS, say)
    assert len(done.kept) == 1 and len(tries) == 6


def test_what_does_not_verify_is_lost(path, renderer):
    tools = by_hand.TOOLS
    done = think(path, renderer, tools, lambda r: "So it is left.", lambda r: "<answer>left</answer>")
    assert done.lost == {"not verified (Follows)": 1}
    wrong = replace(path, task=replace(path.task, answer="left"))
    assert think(wrong, renderer, tools, lambda r: "Fine.").lost == {"wrong answer": 1}
    assert think(replace(path, answer=None), renderer, tools, lambda r: "Fine.").lost == {"no path to an answer": 1}


def test_forced_turns_keep_their_thoughts(path, renderer):
    first = path.turns[0]
    turns = (replace(first, completion=replace(first.completion, forced=True)), *path.turns[1:])
    (made,) = think(replace(path, turns=turns), renderer, by_hand.TOOLS, lambda r: "New.").kept
    assert made.turns[0] == turns[0] and made.turns[1].thought == "New."
    assert not any(made.loss_mask[: len(first.context_ids) + len(first.completion.token_ids)])


def test_a_real_model_can_be_asked(checkpoint, tmp_path):
    """A tiny random checkpoint writes nonsense, and nonsense does not verify: the plumbing holds."""
    store = FrameStore(tmp_path)
    policy = TransformersPolicy.load(checkpoint, store)
    path = by_hand.path_of_two_calls(store, policy.renderer)
    thinker = Thinker(policy=policy, attempts=1, max_tokens=8, temperature=0.0)
    follows = Follows(policy=policy, tools=by_hand.TOOLS, max_tokens=8)
    done = asyncio.run(write_thoughts([path], thinker, policy.renderer, by_hand.TOOLS, (follows,)))
    assert len(done.kept) + sum(done.lost.values()) == 1

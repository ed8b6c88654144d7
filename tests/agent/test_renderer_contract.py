"""The contract of every family: prompts as the family's own processor writes them, a cache that changes nothing.

The checkpoints are tiny and random, but made of the real classes and templates, and saved as a user would have them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playhead.agent.policies.transformers import TransformersPolicy, placeholder_runs
from playhead.agent.prompts import first_messages
from playhead.agent.renderers.preamble import tool_preamble
from playhead.agent.video_agent import VideoAgent
from playhead.core.budget import Budget
from playhead.core.nouns import FinishReason, Frame, Message, StopReason, Task, ToolSpec
from playhead.core.policy import GenerateRequest, Sampling

torch = pytest.importorskip("torch")

SPEC = ToolSpec(name="look", description="Look closely.", parameters={"type": "object", "properties": {}})
FUNCTION = {"type": "function", "function": {"name": "look", "description": "Look closely.", "parameters": SPEC.parameters}}
CALL = '<think>hm</think>\n<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'
STAMPS = {
    "qwen3_vl": ("<0.0 seconds>", "<83.5 seconds>", "<4000.0 seconds>"),
    "qwen2_5_vl": ("0.0s", "83.5s", "4000.0s"),
    "smolvlm": ("\nFrame from 00:00:", "\nFrame from 01:23:", "\nFrame from 66:40:"),
}
only_smolvlm = pytest.mark.parametrize("family", ["smolvlm"], indirect=True)
quick = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def frame(t: float, width: int = 64, height: int = 64) -> Frame:
    return Frame(video_id="v", timestamp_s=t, sha256=f"{int(t * 1000) + width * height:016x}", width=width, height=height)


@pytest.fixture(scope="module")
def renderer(family):
    return family.load_renderer()


@pytest.fixture(scope="module")
def policy(family, store):
    return TransformersPolicy.load(family.folder, store)


def gap(renderer) -> str:
    """What a family's template puts between the opening of the assistant's turn and its text."""
    chat = [{"role": "user", "content": [{"type": "text", "text": "u"}]}]
    said = [{"role": "assistant", "content": [{"type": "text", "text": "SAID"}]}]
    opened = renderer.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    whole = renderer.processor.apply_chat_template(chat + said, tokenize=False)
    assert whole.startswith(opened)
    return whole[len(opened) : whole.index("SAID")]


def own_ids(family, renderer, conversation, frames, store, tools=None) -> list[int]:
    """The token ids that the family's own processor makes of a conversation with images."""
    text = renderer.processor.apply_chat_template(conversation, tools=tools, tokenize=False, add_generation_prompt=True)
    images = [store.pixels(f) for f in frames]
    out = renderer.processor(text=[text], images=images or None, return_tensors="pt", **(family.frame_kwargs if images else {}))
    return out["input_ids"][0].tolist()


def text(t: str) -> dict[str, str]:
    return {"type": "text", "text": t}


# Rendering.


def test_an_episode_is_rendered_as_the_family_itself_would(family, renderer, store):
    """Every message written by hand, as the family's documentation has it, and tokenised by the family's processor."""
    stamps, image = STAMPS[family.model_type], {"type": "image"}
    frames = [frame(0.0), frame(83.5, 200, 90), frame(4000.0, 90, 200)]
    messages = first_messages(5000.0, frames[:2], "When?", ["a", "b"], system="Be brief.")
    ids = list(renderer.start(messages, [SPEC]).token_ids)
    said = renderer.encode(gap(renderer) + CALL) + renderer.stop_token_ids[:1]
    ids += said
    tool_says = (Message(role="tool", content=("At ", frames[2])), Message(role="tool", content=("nothing",)))
    reminder = Message(role="user", content=("Go on.",))
    ids += renderer.extend(said, [*tool_says, reminder]).token_ids

    user = [text("Video of 5000.0 seconds.\n"), text(stamps[0]), image, text(stamps[1]), image,
            text("\nWhen?\nOptions: (A) a (B) b")]  # fmt: skip
    head, tools = [{"role": "system", "content": [text("Be brief.")]}], [FUNCTION]
    seen, nothing = [text("At "), text(stamps[2]), image], [text("nothing")]
    results = [{"role": "tool", "content": seen}, {"role": "tool", "content": nothing}]
    if family.model_type != "qwen3_vl":  # their templates know no tools
        head, tools = [{"role": "system", "content": [text("Be brief.\n\n" + tool_preamble([FUNCTION]))]}], None
        inner = [text("<tool_response>\nAt "), text(stamps[2]), image]
        inner += [text("\n</tool_response>\n<tool_response>\nnothing\n</tool_response>")]
        results = [{"role": "user", "content": inner}]
    conversation = [*head, {"role": "user", "content": user}, {"role": "assistant", "content": [text(CALL)]}, *results,
                    {"role": "user", "content": [text("Go on.")]}]  # fmt: skip
    assert ids == own_ids(family, renderer, conversation, frames, store, tools)


def test_our_tool_preamble_is_the_one_that_qwen3_writes(family, renderer):
    if family.model_type != "qwen3_vl":
        assert not renderer.knows_tools
        start = renderer.decode(renderer.start(first_messages(9.0, (), "What?"), [SPEC]).token_ids)
        assert renderer.default_system + ("\n\n" if renderer.default_system else "") + tool_preamble([FUNCTION]) in start
        return
    assert renderer.knows_tools
    chat = [{"role": "system", "content": [text("Be brief.")]}, {"role": "user", "content": [text("u")]}]
    own = renderer.processor.apply_chat_template(chat, tools=[FUNCTION], tokenize=False)
    assert "Be brief.\n\n" + tool_preamble([FUNCTION]) + "<|im_end|>" in own


PIECES = ["<|im_end|>", "<image>", "<|image_pad|>", "<end_of_", "utterance>", "<", "</tool_response>", "</think>", "a", "\n"]
hostile = (st.text() | st.lists(st.sampled_from(PIECES)).map("".join)).map(lambda s: s.replace("\0", ""))
sizes = st.sampled_from([(64, 64), (100, 40), (320, 180), (90, 200)])
parts = st.lists(hostile | st.builds(lambda t, s: frame(t, *s), st.floats(0, 5000), sizes), max_size=4).map(tuple)


@quick
@given(first=parts, later=st.lists(st.lists(parts, min_size=1, max_size=2), min_size=1, max_size=3), closed=st.booleans())
def test_extending_a_conversation_extends_its_tokens(family, renderer, store, first, later, closed):
    messages = [Message(role="user", content=first)]
    ids = list(renderer.start(messages, [SPEC]).token_ids)
    said = renderer.encode(gap(renderer) + CALL) + (renderer.stop_token_ids[:1] if closed else ())
    for group in later:
        new = [Message(role="tool", content=content) for content in group]
        ids += said + renderer.extend(said, new).token_ids
        messages += [Message(role="assistant", content=("SAID",)), *new]
    conversation = renderer._messages(messages)
    for message in conversation:  # an assistant's own text is not outside text, so it is not disarmed
        if message["role"] == "assistant":
            message["content"] = [text(CALL)]
    if not renderer.knows_tools:
        conversation = renderer._with_preamble(conversation, [FUNCTION])
    frames = [f for m in messages for f in m.frames]
    assert ids == own_ids(family, renderer, conversation, frames, store, [FUNCTION] if renderer.knows_tools else None)


@quick
@given(content=parts)
def test_placeholders_equal_frame_tokens_and_outside_text_makes_none(renderer, content):
    empty = renderer.start([Message(role="user", content=())], ()).token_ids
    full = renderer.start([Message(role="user", content=content)], ())
    frames = [p for p in content if not isinstance(p, str)]
    runs = placeholder_runs(full.token_ids, frames, renderer)
    assert [full.token_ids[a:b].count(renderer.image_token_id) for a, b in runs] == [renderer.frame_tokens(f) for f in frames]
    assert full.token_ids.count(renderer.image_token_id) == sum(renderer.frame_tokens(f) for f in frames)
    ends = set(renderer.stop_token_ids)
    assert sum(t in ends for t in full.token_ids) == sum(t in ends for t in empty)


words = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs", "Cc"])).map(str.strip)


@quick
@given(thought=words, query=words, answer=words.filter(bool), with_call=st.booleans())
def test_render_and_parse_round_trip(renderer, thought, query, answer, with_call):
    call = json.dumps({"name": "look", "arguments": {"query": query}}, ensure_ascii=False)
    rest = f"<tool_call>\n{call}\n</tool_call>" if with_call else f"<answer>{answer}</answer>\n<evidence>1.0-2.0</evidence>"
    said = renderer.encode(gap(renderer) + f"<think>{thought}</think>\n{rest}") + renderer.stop_token_ids[:1]
    parsed = renderer.parse(renderer.completion_text(said), 2)
    assert (parsed.error, parsed.thought) == (None, thought)
    if with_call:
        assert json.loads(parsed.tool_calls[0].arguments_json) == {"query": query}
    else:
        assert (parsed.answer, parsed.evidence) == (answer, "1.0-2.0")


def test_times_are_written_as_the_family_was_trained(family, renderer):
    assert tuple(map(renderer.stamp, (0.0, 83.5, 4000.0))) == STAMPS[family.model_type]
    if family.model_type == "smolvlm":  # against the code that writes the frames of a video
        from transformers.models.smolvlm import processing_smolvlm as own

        assert renderer.stamp(83.5) == own.FRAME_TIMESTAMP_MESSAGE.format(timestamp="01:23")
    if family.model_type == "qwen3_vl":  # the same; a pair of equal times is one step of its video encoder
        from types import SimpleNamespace

        metadata = SimpleNamespace(fps=2.0, frames_indices=[0, 0, 167, 167, 8000, 8000])
        processor, grid = renderer.processor, torch.tensor([[3, 4, 4]])
        told = processor.replace_video_token({"video_grid_thw": grid, "video_metadata": [metadata]}, 0)
        between = told.replace(processor.vision_start_token + processor.video_token * 4 + processor.vision_end_token, "|")
        assert tuple(between.strip("|").split("|")) == STAMPS["qwen3_vl"]


@only_smolvlm
@quick
@given(height=st.integers(8, 300), width=st.integers(8, 300))
def test_tiles_are_counted_as_the_image_processor_cuts(family, height, width):
    from playhead.agent.renderers.smolvlm import SmolVLMRenderer

    renderer = SmolVLMRenderer(family.load_renderer().processor, split=True)
    image = np.zeros((height, width, 3), np.uint8)
    out = renderer.processor.image_processor(
        images=[[image]], return_tensors="pt", input_data_format="channels_last", return_row_col_info=True
    )
    shown = frame(1.0, width, height)
    assert renderer.tile_grid(shown) == (out["rows"][0][0], out["cols"][0][0])
    assert renderer.tiles(shown) == out["pixel_values"].shape[1]


# The forward pass.


def recompute(policy, ids, frames, renderer):
    """Logits (T, V) by the model's own forward over everything at once, pixels by the family's own processors."""
    row = torch.tensor([ids])
    inputs = {"input_ids": row, "attention_mask": torch.ones_like(row)}
    images = [policy.store.pixels(f) for f in frames]
    how = {} if policy.model.config.model_type != "smolvlm" else {
        "do_image_splitting": renderer.split, **({} if renderer.split else {"size": {"longest_edge": 32}})
    }  # fmt: skip
    nested = [images] if policy.model.config.model_type == "smolvlm" else images
    inputs |= renderer.processor.image_processor(images=nested, return_tensors="pt", **how)
    if policy.model.config.model_type != "smolvlm":
        policy.model.model.rope_deltas = None
        inputs["mm_token_type_ids"] = (row == renderer.image_token_id).int()
    inputs = {k: v for k, v in inputs.items() if k not in ("rows", "cols")}
    with torch.no_grad():
        return policy.model(**inputs).logits[0].float()


def five_turns(policy, session):
    """(largest difference of logits, tokens sampled) over 5 turns with new frames each, greedy, against a recompute."""
    renderer, worst, sampled = policy.renderer, 0.0, 0
    seen: list = []
    family, policy_logits = policy.family, policy.family.logits
    family.logits = lambda hidden: seen.append(policy_logits(hidden)) or seen[-1]
    messages = first_messages(100.0, [frame(1), frame(2, 200, 90)], "What happens?")
    start = renderer.start(messages, [SPEC])
    request = GenerateRequest(session=session, token_ids=start.token_ids, frames=start.frames, messages=messages,
                              sampling=Sampling(max_tokens=10))  # fmt: skip
    try:
        for turn in range(5):
            seen.clear()
            (said,) = asyncio.run(policy.generate([request]))
            assert said.finish_reason in (FinishReason.LENGTH, FinishReason.STOP), said.text
            assert said.reused_tokens > 0 or turn == 0
            ids, n = request.token_ids + said.token_ids, len(said.token_ids)
            logits = recompute(policy, ids, request.frames, renderer)[-n - 1 : -1]
            # A long prefill gives logits for every chunk; only those after the last token were sampled from.
            ours = torch.cat(seen[len(seen) - n :], dim=1)[0]
            worst = max(worst, float((ours - logits).abs().max()))
            logits[:, list(renderer.suppressed_token_ids)] = float("-inf")
            assert logits.argmax(-1).tolist() == list(said.token_ids)
            sampled += n
            shown = (frame(10 + turn), "and", frame(1), frame(20 + turn, 64, 128))
            new = renderer.extend(said.token_ids, [Message(role="tool", content=shown)])
            request = dataclasses.replace(request, token_ids=ids + new.token_ids, frames=request.frames + new.frames)
    finally:
        family.logits = policy_logits
    return worst, sampled


def test_a_kept_cache_equals_a_full_recompute(policy, record_property):
    worst, sampled = five_turns(policy, "five")
    record_property("largest_difference", worst)
    assert worst <= 1e-4
    assert sampled >= 5


@only_smolvlm
def test_a_frame_cut_into_tiles_equals_a_full_recompute(family, policy):
    from playhead.agent.renderers.smolvlm import SmolVLMRenderer

    split = TransformersPolicy(policy.model, SmolVLMRenderer(policy.renderer.processor, split=True), policy.store)
    assert split.renderer.frame_span(frame(1)) > split.renderer.frame_tokens(frame(1))
    worst, _ = five_turns(split, "tiles")
    assert worst <= 1e-4


@only_smolvlm
def test_a_frame_is_seen_as_a_frame_of_a_video(family, renderer, store):
    """SmolVLM's image path with our arguments gives the pixels that its video path gives."""
    shown = frame(1.0, 100, 60)
    own = renderer.processor.video_processor(videos=[store.pixels(shown)[None]], return_tensors="pt", do_sample_frames=False)
    assert torch.allclose(renderer.pixel_inputs([shown], store), own["pixel_values"][0], atol=1e-6)


# The loop.


def test_an_episode_runs_with_every_family(family, film, tmp_path):
    """Random weights make no sense, but whatever they say is read, reminded, and ended by the budget, without an error."""
    agent = VideoAgent(
        str(family.folder), tools=("temporal_zoom",), skim_frames=2, home=tmp_path, temperature=1.0,
        budget=Budget(turns=3, sampled_tokens=250, context_tokens=2500),
    )  # fmt: skip
    trajectory = asyncio.run(agent.arun(Task(id="t", question="When is it red?", video=str(film))))
    assert trajectory.error is None and trajectory.stop_reason is not StopReason.ERROR
    assert trajectory.turns[0].completion.prefill_tokens > 0
    assert [t.completion.reused_tokens > 0 for t in trajectory.turns[1:]] == [True] * (len(trajectory.turns) - 1)
    assert trajectory.exact

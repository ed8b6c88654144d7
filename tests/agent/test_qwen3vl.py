"""The renderer against the processor itself: extending a conversation extends its tokens; outside text stays text."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playhead.agent.prompts import first_messages
from playhead.agent.renderers.qwen3vl import Qwen3VLRenderer, parse
from playhead.core.nouns import Frame, Message, ToolSpec

TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<|im_end|>"]
SPEC = ToolSpec(name="look", description="Look at <|image_pad|> closely.", parameters={"type": "object", "properties": {}})
CALL = '<think>hm</think>\n<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'


def frame(t: float, width: int = 64, height: int = 64) -> Frame:
    return Frame(video_id="v", timestamp_s=t, sha256=f"{int(t * 1000):016x}", width=width, height=height)


PIECES = ["<|im_end|>", "<|image_pad|>", "<|im_", "start|>", "<", "|im_end|>", "<tool_response>", "</think>", "a", "\n"]
hostile = st.text() | st.lists(st.sampled_from(PIECES)).map("".join)
sizes = st.sampled_from([(64, 64), (100, 40), (320, 180), (500, 500)])
parts = st.lists(hostile | st.builds(lambda t, s: frame(t, *s), st.floats(0, 5000), sizes), max_size=5).map(tuple)


def whole(renderer, messages, tools=(), n_pads=None) -> tuple[int, ...]:
    """The processor's own rendering of a whole conversation, placeholders expanded by the processor's own count."""
    plain = [renderer._message(m) for m in messages]
    text = renderer.processor.apply_chat_template(
        plain, tools=[renderer._tool(t) for t in tools] or None, tokenize=False, add_generation_prompt=True
    )
    sizes = [[f.height, f.width] for m in messages for f in m.frames]
    counts = renderer.processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"] if sizes else []
    for n in counts:
        text = text.replace("<|image_pad|>", "\0" * int(n), 1)
    return renderer.encode(text.replace("\0", "<|image_pad|>"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=parts, later=st.lists(st.lists(parts, min_size=1, max_size=3), min_size=1, max_size=3), closed=st.booleans())
def test_extending_a_conversation_extends_its_tokens(processor, first, later, closed):
    renderer = Qwen3VLRenderer(processor)
    tools = (SPEC,)
    messages = [Message(role="user", content=tuple(p if not isinstance(p, str) else p.replace("\0", "") for p in first))]
    ids = list(renderer.start(messages, tools).token_ids)
    for group in later:
        completion = renderer.encode(CALL + ("<|im_end|>" if closed else ""))
        new = [
            Message(role="tool", content=tuple(p if not isinstance(p, str) else p.replace("\0", "") for p in content))
            for content in group
        ]
        ids += completion + renderer.extend(completion, new).token_ids
        messages += [Message(role="assistant", content=(CALL,)), *new]
    # An assistant's own text is not outside text: it is compared as the template would write it.
    renderer_text = Qwen3VLRenderer(processor)
    renderer_text.disarm = lambda text: text if text == CALL else renderer.disarm(text)  # type: ignore[method-assign]
    assert tuple(ids) == whole(renderer_text, messages, tools)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=parts)
def test_outside_text_never_becomes_a_control_token(processor, content):
    renderer = Qwen3VLRenderer(processor)
    empty = renderer.start([Message(role="user", content=())], ())
    full = renderer.start([Message(role="user", content=content)], ())
    frames = [p for p in content if not isinstance(p, str)]
    control = {v for k, v in renderer.tokenizer.get_added_vocab().items()}
    counts = {c: full.token_ids.count(c) - empty.token_ids.count(c) for c in control}
    vocab = renderer.tokenizer.get_vocab()
    assert counts.pop(renderer.image_token_id) == sum(renderer.frame_tokens(f) for f in frames)
    assert counts.pop(vocab["<|vision_start|>"]) == counts.pop(vocab["<|vision_end|>"]) == len(frames)
    assert set(counts.values()) <= {0}
    assert full.frames == tuple(frames)


def test_tool_descriptions_are_disarmed_and_plain_text_is_untouched(processor):
    renderer = Qwen3VLRenderer(processor)
    ids = renderer.start(first_messages(9.0, (), "Is 1 < 2 <b>?"), (SPEC,)).token_ids
    assert renderer.image_token_id not in ids
    assert "Is 1 < 2 <b>?" in renderer.decode(ids)
    for tag in TAGS:
        assert tag not in renderer.disarm("x" + tag)


def test_frames_are_written_with_their_time_and_the_image_processors_count(processor):
    renderer = Qwen3VLRenderer(processor)
    assert renderer.frame_tokens(frame(0.0)) == 4
    ids = renderer.start(first_messages(750.04, [frame(12.04)], "What?", ["red", "green"]), ()).token_ids
    expected = "Video of 750.0 seconds.\n<12.0 seconds><|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>\nWhat?"
    assert expected + "\nOptions: (A) red (B) green<|im_end|>\n" in renderer.decode(ids)


def test_pixels_agree_with_placeholders(processor, store):
    renderer = Qwen3VLRenderer(processor)
    frames = [frame(1.0), frame(2.0, 320, 180), frame(3.0, 40, 90)]
    pixels, grids = renderer.pixel_inputs(frames, store)
    assert [tuple(g) for g in grids.tolist()] == renderer.image_grids(frames)
    assert (grids.prod(-1) // 4).tolist() == [renderer.frame_tokens(f) for f in frames]
    assert pixels.shape[0] == int(grids.prod(-1).sum())


def test_parse_reads_thought_calls_answer_and_evidence():
    said = parse('<think>a</think>\n<tool_call>\n{"name": "f", "arguments": {"q": "ü"}}\n</tool_call>\n'
                 '<tool_call>{"name": "g", "arguments": "{\\"k\\": 1}"}</tool_call>', 3)
    assert said.error is None and said.thought == "a"
    assert [(c.id, c.name, json.loads(c.arguments_json)) for c in said.tool_calls] == [
        ("call_3_0", "f", {"q": "ü"}), ("call_3_1", "g", {"k": 1}),
    ]
    done = parse("<think>b</think>\n<answer> red </answer>\n<evidence>1.0-2.0; 3.0-4.0</evidence>", 0)
    assert (done.answer, done.evidence, done.error, done.tool_calls) == ("red", "1.0-2.0; 3.0-4.0", None, ())
    assert parse("thought opened by the template</think><answer>x</answer>", 0).thought == "thought opened by the template"


@pytest.mark.parametrize(("text", "word"), [
    ("", "neither"), ("hello", "neither"), ("<think>never ends <answer>x</answer>", "</think>"),
    ("<tool_call>{bad</tool_call>", "not JSON"), ("<tool_call>[1]</tool_call>", "no name"),
    ('<tool_call>{"name": 3}</tool_call>', "no name"), ('<tool_call>{"name": "a"}', "</tool_call>"),
    ("<answer>x", "</answer>"), ("<answer> </answer>", "empty"),
    ("<think><answer>x</answer></think>", "neither"), ("<tool_call>" + "[" * 100000 + "</tool_call>", "not JSON"),
])  # fmt: skip
def test_malformed_completions_say_what_is_wrong(text, word):
    said = parse(text, 0)
    assert said.error and word in said.error
    assert not said.tool_calls and said.answer is None


@settings(max_examples=100, deadline=None)
@given(st.text() | st.lists(st.sampled_from([*TAGS, "<answer>", "</answer>", "{", '"name"', "x"])).map("".join))
def test_parse_never_raises_and_always_decides(text):
    said = parse(text, 0)
    assert (said.error is None) == bool(said.tool_calls or said.answer)

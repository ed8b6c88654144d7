"""Exports against the loaders that are here and the documented schemas of those that are not; and back again."""

import json
import re
from dataclasses import replace
from pathlib import Path

import path_of_two_calls as by_hand
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playhead.core.errors import DataError
from playhead.core.frames import FrameStore
from playhead.core.trajectory import read_trajectories
from playhead.train.data.formats import EXPORTS, exporter, parser
from playhead.train.data.formats.chat import join_calls, safe, split_calls
from playhead.train.data.formats.importing import Place, import_set
from playhead.train.data.rerender import rerender
from playhead.train.samples import sample_of

FILES = {"longvt": "train.parquet", "llama-factory": "playhead.json"}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FrameStore:
    return FrameStore(tmp_path_factory.mktemp("frames"))


@pytest.fixture(scope="module")
def paths(store, renderer):
    return [by_hand.path_of_two_calls(store, renderer, n) for n in range(2)]


@pytest.fixture
def forced(paths):
    """One whose first turn was forced: nobody may be trained to say it."""
    first = paths[0].turns[0]
    turns = (replace(first, completion=replace(first.completion, forced=True)), *paths[0].turns[1:])
    return replace(paths[0], id="forced", turns=turns)


def export(name, trajectories, store, out):
    return exporter(name)(iter(trajectories), store, out, by_hand.TOOLS)


# Schemas, as the other tools document them


def swift_rows(path: Path):
    """ms-swift `Agent-support.md`: roles, tools and tool contents as JSON texts, as many images as <image>."""
    for line in path.read_text().splitlines():
        row = json.loads(line)
        roles = {"system", "user", "assistant", "tool_call", "tool_response"}
        assert {m["role"] for m in row["messages"]} <= roles
        assert set(row) <= {"messages", "tools", "images", "playhead"}
        assert all(set(m) <= {"role", "content", "loss"} and isinstance(m["content"], str) for m in row["messages"])
        for message in row["messages"]:
            if message["role"] in ("tool_call", "tool_response"):
                assert isinstance(json.loads(message["content"]), dict)
            if message["role"] == "tool_call":
                assert set(json.loads(message["content"])) == {"name", "arguments"}
        assert all(t["type"] == "function" for t in json.loads(row["tools"]))
        assert sum(m["content"].count("<image>") for m in row["messages"]) == len(row["images"])
        assert all(Path(p).is_absolute() and Path(p).is_file() for p in row["images"])
        yield row


def llamafactory_rows(path: Path):
    """LLaMA-Factory `data/README.md` and `SharegptDatasetConverter`: places of roles, even count, images, tools."""
    info = json.loads((path.parent / "dataset_info.json").read_text())["playhead"]
    assert info["formatting"] == "sharegpt" and info["file_name"] == path.name
    for row in json.loads(path.read_text()):
        said = row[info["columns"]["messages"]]
        assert len(said) % 2 == 0
        for i, message in enumerate(said):
            assert set(message) == {"from", "value"}
            assert message["from"] in (("human", "observation"), ("gpt", "function_call"))[i % 2]
            if message["from"] == "function_call":  # FunctionFormatter: the JSON inside the tags, or all of it
                inside = re.search(r"<tool_call>(.*?)</tool_call>", message["value"], re.S)
                calls = json.loads(inside[1] if inside else message["value"])
                calls = calls if isinstance(calls, list) else [calls]
                assert all({"name", "arguments"} <= set(c) for c in calls)
        assert sum(m["value"].count("<image>") for m in said) == len(row["images"])
        assert all((path.parent / p).is_file() for p in row["images"])
        assert all({"name", "description", "parameters"} == set(t) for t in json.loads(row["tools"]))
        yield row


def test_trl_loads_in_datasets_and_in_trls_own_collator(paths, store, tmp_path, renderer):
    from datasets import Image, load_dataset

    done = export("trl", paths, store, tmp_path)
    rows = load_dataset("parquet", data_files=str(done.path), cache_dir=str(tmp_path / "cache"))["train"]
    assert len(rows) == done.count == 2 and isinstance(rows.features["images"].feature, Image)
    row = rows[0]
    assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    assert len(row["images"]) == 13 and row["images"][0].size == (96, 64)
    assert [t["function"]["name"] for t in json.loads(row["tools"])] == ["search_clips", "temporal_zoom"]
    from trl.data_utils import prepare_multimodal_messages
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    prepared = prepare_multimodal_messages(row["messages"], images=row["images"])
    assert sum(p["type"] == "image" for m in prepared for p in m["content"]) == 13
    batch = DataCollatorForVisionLanguageModeling(renderer.processor)([dict(row)])
    ids = batch["input_ids"][0].tolist()
    expected = sum(renderer.frame_tokens(f) for f in paths[0].frames)
    assert ids.count(renderer.image_token_id) == expected
    text = renderer.decode(ids)
    for turn in paths[0].turns:  # what was said stands there, to the byte
        assert f"<|im_start|>assistant\n{turn.completion.text}<|im_end|>" in text


def test_verl_parquet_is_what_its_dataset_reads(paths, store, tmp_path):
    import io

    import pandas
    from PIL import Image

    done = export("verl", paths, store, tmp_path)
    frame = pandas.read_parquet(done.path)  # as MultiTurnSFTDataset does
    assert list(frame.columns) == ["messages", "images", "playhead"]
    for row in frame.to_dict("records"):
        used = 0
        for message in row["messages"]:
            assert message["role"] in ("system", "user", "assistant") and isinstance(message["content"], str)
            used += sum(s == "<image>" for s in re.split("(<image>|<video>)", message["content"]))
        assert used == len(row["images"])
        assert Image.open(io.BytesIO(row["images"][0]["bytes"])).size == (96, 64)


def test_ms_swift_follows_its_documentation(paths, store, tmp_path, forced):
    done = export("ms-swift", [*paths, forced], store, tmp_path)
    rows = list(swift_rows(done.path))
    assert done.count == len(rows) == 3 and done.left_out == 0
    assert [m["role"] for m in rows[0]["messages"]] == [
        *("system", "user", "assistant", "tool_call", "tool_call", "tool_response", "tool_response"),
        *("assistant", "tool_call", "tool_response", "assistant"),
    ]
    assert [m.get("loss") for m in rows[2]["messages"][2:5]] == [False, False, False]


def test_llama_factory_follows_its_documentation(paths, store, tmp_path):
    done = export("llama-factory", paths, store, tmp_path)
    rows = list(llamafactory_rows(done.path))
    assert [m["from"] for m in rows[0]["conversations"]] == [
        "human", "function_call", "observation", "function_call", "observation", "gpt"
    ]  # fmt: skip
    assert rows[0]["system"] == "Be brief."


def test_longvt_follows_what_lmms_engine_reads(paths, store, tmp_path):
    import pyarrow.parquet as pq

    done = export("longvt", paths, store, tmp_path)
    assert "dataset_format: yaml" in done.use and "data_type: parquet" in done.use  # 0.1.4 refuses dataset_format: parquet
    for row in pq.read_table(done.path).to_pylist():
        assert [m["role"] for m in row["messages"]].count("assistant") == 3
        for message in row["messages"]:
            assert message["role"] in ("system", "user", "assistant")  # all else would be learned
            for part in message["content"]:
                assert part["type"] in ("text", "image_url")
                if part["type"] == "image_url":
                    assert (tmp_path / part["image_url"]["url"]).is_file()


@pytest.mark.parametrize("name", [n for n in EXPORTS if n != "ms-swift"])
def test_what_the_model_did_not_say_is_left_out_where_it_cannot_be_masked(name, paths, store, tmp_path, forced):
    done = export(name, [forced, paths[1]], store, tmp_path)
    assert (done.count, done.left_out) == (1, 1)


@pytest.mark.parametrize("name", list(FILES))
def test_round_trip(name, paths, store, tmp_path, renderer):
    """Export and import: the same messages, calls, answers and frames; with the renderer, the same tokens and mask."""
    plain = [by_hand.path_of_two_calls(store, renderer, n, question="Which way?") for n in (3, 4)]
    done = export(name, plain, store, tmp_path / "out")
    for tokens in (None, renderer):
        out = tmp_path / ("exact" if tokens else "inexact")
        made = import_set(done.path, parser(name), out, Place(folder=done.path.parent), tokens)
        back = list(read_trajectories(made.path))
        assert [t.messages for t in back] == [t.messages for t in plain]
        assert [t.frames for t in back] == [t.frames for t in plain]
        assert [t.answer for t in back] == [t.answer for t in plain]
        assert [t.task for t in back] == [t.task for t in plain]
        for one, other in zip(back, plain, strict=True):
            assert [t.tool_calls for t in one.turns] == [t.tool_calls for t in other.turns]
            assert [o.content for o in one.observations] == [o.content for o in other.observations]
            assert one.exact == (tokens is not None)
            FrameStore(out / "frames").pixels(one.frames[0])
            if tokens is not None:
                assert (one.token_ids, one.loss_mask) == (other.token_ids, other.loss_mask)
                sample_of(one, renderer, renderer.image_token_id)
            else:
                with pytest.raises(DataError, match="exact=False"):
                    sample_of(one, renderer, renderer.image_token_id)


def test_a_placeholder_in_a_question_does_not_shift_the_images(paths, store, tmp_path):
    done = export("llama-factory", paths[:1], store, tmp_path)
    (row,) = llamafactory_rows(done.path)
    assert "Which < image> way?" in row["conversations"][0]["value"]


def test_conversations_of_others_become_trajectories(tmp_path, renderer):
    """A trace as LongVT publishes them: tools in the system's words, a crop, its frames without times."""
    from PIL import Image

    Image.new("RGB", (96, 64), "red").save(tmp_path / "a.jpg")
    crop = '{"name": "crop_video", "arguments": {"video_path": "x.mp4", "start_time": 10.0, "end_time": 14.0}}'
    picture = {"type": "image_url", "image_url": {"url": "a.jpg"}}

    def text(t):
        return {"type": "text", "text": t}

    messages = [
        {"role": "system", "content": [text("You can crop.")]},
        {"role": "user", "content": [text("What happens? Think first.")]},
        {"role": "assistant", "content": f"<think>Look.</think><tool_call>\n{crop}\n</tool_call>"},
        {"role": "user", "content": [text("<tool_response>\n"), picture, picture, text("\n</tool_response>")]},
        {"role": "assistant", "content": [text("<think>I see.</think><answer>It burns.</answer>")]},
    ]
    source = tmp_path / "trace.jsonl"
    source.write_text(json.dumps({"messages": messages}) + "\n")
    made = import_set(source, parser("longvt"), tmp_path / "set", Place(folder=tmp_path), renderer)
    (back,) = read_trajectories(made.path)
    assert back.answer is not None and back.answer.text == "It burns."
    assert [c.name for t in back.turns for c in t.tool_calls] == ["crop_video"]
    assert [f.timestamp_s for f in back.frames] == [10.0, 12.0]  # spread over what the call asked for
    assert back.task.question == "What happens? Think first." and back.turns[0].context_messages[0].text == "You can crop."
    sample_of(back, renderer, renderer.image_token_id)


BAD = {
    "is gone": ({"images": ["gone.png"]}, "gone.png"),
    "too many images": ({"images": ["a.png", "a.png"]}, "2 images, but 1 <image>"),
    "too few images": ({"images": []}, "more <image> in its messages than its 0 images"),
    "unknown role": ({"conversations": [{"from": "robot", "value": "x"}]}, "'robot'"),
    "bad call": ({"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "go"}]}, "not JSON"),
    "nobody answers": ({"conversations": [{"from": "human", "value": "x"}], "images": []}, "no assistant"),
    "damaged note": ({"playhead": "{}"}, "column `playhead` is damaged"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_bad_record_is_named_or_skipped(name, tmp_path):
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    good = {"conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "<answer>x</answer>"}]}
    good["images"] = ["a.png"]
    change, says = BAD[name]
    source = tmp_path / "data.json"
    source.write_text(json.dumps([good, {**good, **change}, good]))
    with pytest.raises(DataError, match=f"record 1.*{re.escape(says)}"):
        import_set(source, parser("llama-factory"), tmp_path / "first", Place(folder=tmp_path), None)
    bad: list[DataError] = []
    made = import_set(source, parser("llama-factory"), tmp_path / "rest", Place(folder=tmp_path), None, bad.append)
    assert made.count == 2 and len(bad) == 1


def test_control_tokens_in_an_assistants_text_are_refused(paths, renderer):
    last = paths[0].turns[-1]
    evil = replace(last, completion=replace(last.completion, text="<answer>x<|im_end|></answer>"))
    with pytest.raises(DataError, match="only the template may write"):
        rerender(replace(paths[0], turns=(*paths[0].turns[:-1], evil)), renderer, by_hand.TOOLS)


@given(
    st.text(alphabet="<>/_think tol_cal\n{}\"name: args}", max_size=60),
    st.lists(st.sampled_from(["{}", '{"a": 1}']), max_size=2),
)
def test_calls_are_split_only_where_they_join_again(head, arguments):
    bodies = [f'{{"name": "f", "arguments": {a}}}' for a in arguments]
    text = join_calls(head, bodies)
    content, calls = split_calls(text)
    assert (join_calls(content, calls) if calls else content) == text


@given(st.text(alphabet="<>imagevdo ", max_size=40))
def test_safe_text_has_no_placeholder(text):
    assert not re.search("<image>|<video>|<audio>", safe(text))


def test_unknown_formats_and_files(tmp_path):
    with pytest.raises(DataError, match="take one of trl, ms-swift"):
        exporter("csv")
    (tmp_path / "x.txt").write_text("")
    (tmp_path / "x.parquet").write_text("no parquet")
    for name, says in (("gone.json", "no such file"), ("x.txt", "ends in none of"), ("x.parquet", "not readable as parquet")):
        with pytest.raises(DataError, match=says):
            import_set(tmp_path / name, parser("longvt"), tmp_path / "o", Place(folder=tmp_path), None)

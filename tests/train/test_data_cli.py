"""`playhead data`: sets with bad records are refused by name or skipped with a count; the other commands say what they did."""

import json
from pathlib import Path

import path_of_two_calls as by_hand
import pytest
from playhead.cli import run
from playhead.core.errors import DataError
from playhead.core.frames import FrameStore
from playhead.core.trajectory import SCHEMA_VERSION, read_trajectories, to_json
from playhead.train.data.sets import TrajectorySet


@pytest.fixture
def folder(tmp_path: Path, renderer) -> Path:
    """A set of three, whose video is there."""
    root = tmp_path / "set"
    store = FrameStore(root / "frames")
    root.mkdir()
    (root / "a.mp4").write_bytes(b"film")
    trajectories = [by_hand.path_of_two_calls(store, renderer, n, question="Which way?") for n in range(3)]
    (root / "trajectories.jsonl").write_text("".join(to_json(t) + "\n" for t in trajectories))
    return root


def change(folder: Path, name: str) -> None:
    """Break the second record."""
    file = folder / "trajectories.jsonl"
    lines = file.read_text().splitlines()
    data = json.loads(lines[1])
    turn = data["turns"][1]
    if name == "missing video":
        data["task"]["video"] = "gone.mp4"
    elif name == "missing frame":
        sha = turn["context_frames"][0]["sha256"]
        (folder / "frames" / sha[:2] / f"{sha}.png").unlink()
    elif name == "wrong mask length":
        turn["completion"]["logprobs"] = [0.0]
    elif name == "image count":
        turn["context_frames"].pop()
    elif name == "placeholders":
        turn["context_ids"] = turn["context_ids"][: len(turn["context_ids"]) // 2]
    elif name == "unknown schema version":
        data["schema_version"] = SCHEMA_VERSION + 1
    elif name == "twice":
        data["id"] = "path-0"
    elif name == "frame size":
        for where in (turn["context_frames"][0], turn["context_messages"][0]["content"][1]):
            where["width"] = 100
    lines[1] = "{" if name == "not JSON" else json.dumps(data)
    file.write_text("\n".join(lines) + "\n")


BAD = {
    "missing video": "path-1: its video gone.mp4 is missing",
    "missing frame": "path-1: frame",
    "wrong mask length": "path-1, turn 1: 1 log-probs",
    "image count": "path-1, turn 1: its messages show 3 frames, its tokens 2",
    "placeholders": "path-1",
    "unknown schema version": "jsonl:2: schema version",
    "twice": "path-0: the id stands twice",
    "frame size": "the record says 100x64",
    "not JSON": "jsonl:2: not JSON",
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_bad_record_is_named_or_skipped_with_a_count(name, folder, tmp_path, renderer, capsys):
    renderer.processor.save_pretrained(tmp_path / "tokens")
    (tmp_path / "tokens" / "config.json").write_text('{"model_type": "qwen3_vl"}')
    change(folder, name)
    tokens = ["--tokenizer", str(tmp_path / "tokens")] if name == "placeholders" else []
    assert run(["data", "validate", str(folder), *tokens]) == 2
    assert BAD[name] in " ".join(capsys.readouterr().err.split())
    sound = folder / "sound.jsonl"
    assert run(["data", "validate", str(folder), *tokens, "--skip-bad", "--out", str(sound)]) == 0
    said = capsys.readouterr()
    assert "2 sound records, 1 bad ones left out" in " ".join(said.out.split())
    assert BAD[name].split()[0] in " ".join(said.err.split())
    assert [t.id for t in read_trajectories(sound)] == ["path-0", "path-2"]


def test_a_line_with_a_long_path_is_one_line(folder, capsys):
    """Where nobody watches, lines used to be folded at 80 characters: in the middle of the path that one wants to open."""
    deep = folder.rename(folder.parent / ("a-name-of-forty-characters-and-some-more-" * 3))
    change(deep, "not JSON")
    bad = deep / "trajectories.jsonl"
    assert run(["data", "validate", str(deep), "--skip-bad"]) == 0
    said = capsys.readouterr()
    assert f"{bad}:2: not JSON" in said.err and f"{bad}: 2 sound records" in said.out


def test_a_sound_set_is_sound_without_its_videos_too(folder, capsys):
    assert run(["data", "validate", str(folder)]) == 0
    assert "3 sound records" in capsys.readouterr().out
    (folder / "a.mp4").unlink()
    assert run(["data", "validate", str(folder)]) == 2
    assert run(["data", "validate", str(folder), "--no-videos"]) == 0


@pytest.mark.parametrize("name", ["missing frame", "frame size", "not JSON", "image count"])
def test_what_carries_frames_refuses_or_skips_them_too(name, folder, tmp_path, renderer, capsys):
    """Exports and the words in other tokens: what is bad is found before its pixels are asked for, and named."""
    renderer.processor.save_pretrained(tmp_path / "tokens")
    (tmp_path / "tokens" / "config.json").write_text('{"model_type": "qwen3_vl"}')
    change(folder, name)
    for command in (["export", "--format", "trl"], ["rerender", "--tokenizer", str(tmp_path / "tokens")]):
        what, *how = command
        out = tmp_path / what
        assert run(["data", what, str(folder), *how, "--out", str(out)]) == 2
        assert BAD[name] in " ".join(capsys.readouterr().err.split())
        assert run(["data", what, str(folder), *how, "--out", str(out), "--skip-bad"]) == 0
        said = capsys.readouterr()
        assert "1 bad" in " ".join((said.out + said.err).split()) and "2 " in said.out


@pytest.mark.parametrize("version", [0, -1, True, "1", None, SCHEMA_VERSION + 1])
def test_a_version_that_never_was_is_refused(version, folder):
    file = folder / "trajectories.jsonl"
    file.write_text(json.dumps(json.loads(file.read_text().splitlines()[0]) | {"schema_version": version}) + "\n")
    with pytest.raises(DataError, match=r"jsonl:1: schema version .* reads 1 to"):
        list(TrajectorySet(folder).read())


def test_older_records_get_defaults_and_unknown_fields_are_ignored(folder):
    """The documented rule for schema versions."""
    file = folder / "trajectories.jsonl"
    data = json.loads(file.read_text().splitlines()[0])
    del data["temperature"], data["usage"], data["group_id"], data["turns"][0]["thought"]
    data["group_id"] = "g"
    data["from_the_future"] = {"x": 1}
    file.write_text(json.dumps(data) + "\n")
    (read,) = TrajectorySet(folder).read()
    assert read.temperature == 0.0 and read.turns[0].thought == ""


def test_stats(folder, capsys):
    assert run(["data", "stats", str(folder), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["trajectories"] == 3 and card["tools"] == {"search_clips": 6, "temporal_zoom": 3}
    assert card["licences"] == {"by hand": "not stated"} and card["lengths"]["frames"]["mean"] == 13
    assert run(["data", "stats", str(folder)]) == 0
    assert "3 trajectories of 3 tasks" in capsys.readouterr().out
    change(folder, "not JSON")
    assert run(["data", "stats", str(folder)]) == 2
    assert run(["data", "stats", str(folder), "--skip-bad"]) == 0
    assert "1 bad records left out" in capsys.readouterr().err


def test_export_and_import(folder, tmp_path, capsys):
    out = tmp_path / "lf"
    assert run(["data", "export", str(folder), "--format", "llama-factory", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 3
    back = tmp_path / "back"
    args = ["data", "import", str(out / "playhead.json"), "--format", "llama-factory", "--out", str(back)]
    assert run(args) == 0
    assert "3 trajectories (not exact" in " ".join(capsys.readouterr().out.split())
    assert run(args) == 2  # the folder holds a set now
    assert "holds a set already" in capsys.readouterr().err


def test_view(folder, tmp_path, capsys):
    assert run(["data", "view", str(folder), "--limit", "2", "--out", str(tmp_path / "page.html")]) == 0
    assert "2 trajectories" in capsys.readouterr().out and (tmp_path / "page.html").is_file()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["data", "stats", "gone"], "playhead collect"),
        (["data", "export", "SET", "--format", "csv", "--out", "o"], "take one of"),
        (["data", "validate", "SET", "--out", "o"], "--skip-bad"),
        (["data", "validate", "SET", "--skip-bad", "--out", "/o.jsonl"], "where the frames are"),
        (["data", "validate", "SET", "--tokenizer", "./gone"], "no model there"),
        (["data", "import", "gone.json", "--format", "longvt", "--out", "o"], "no such file"),
        (["collect", "--data", "gone", "--out", "o"], "gone"),
        (["collect", "--data", "gone", "--out", "o", "--keep", "best"], "no filter is called 'best'"),
        (["collect", "--data", "gone", "--out", "o", "--strategy", "hope"], "hope"),
        (["collect", "--data", "gone", "--out", "o", "--rubric", "vibes"], "--rubric"),
    ],
)
def test_bad_input_is_one_line_and_two(args, says, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run([str(folder) if a == "SET" else a for a in args]) == 2
    error = capsys.readouterr().err
    assert says in " ".join(error.split()) and "Traceback" not in error


def test_frames_are_checked_by_content(folder, capsys):
    (first, *_) = TrajectorySet(folder).read()
    sha = first.frames[0].sha256
    path = folder / "frames" / sha[:2] / f"{sha}.png"
    path.write_bytes(path.read_bytes()[:400])
    assert run(["data", "validate", str(folder)]) == 2
    assert "path-0: frame" in capsys.readouterr().err

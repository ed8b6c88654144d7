"""Whole files: what is written is there, what cannot be written leaves what was there before."""

import json

import pytest
from playhead.core.whole import write_json, write_whole


def test_what_models_write_is_written_and_read_again(tmp_path):
    value = {"said": "é \ud800 lone", "n": [1, 2.5, None]}
    assert json.loads(write_json(tmp_path / "a.json", value).read_text(encoding="utf-8")) == value
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    path = write_whole(tmp_path / "a.txt", "before")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    with pytest.raises(TypeError):
        write_json(path, {"no": object()})
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]

"""TextMemory: captions are found by their words, whatever a model writes as a query."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playhead.core.errors import DataError
from playhead.core.nouns import Clip
from playhead.memory.text import TextMemory


def clip(start_s: float, video: str = "v") -> Clip:
    return Clip(video_id=video, start_s=start_s, end_s=start_s + 1)


@pytest.fixture
def memory() -> TextMemory:
    memory = TextMemory()
    memory.add("v", clip(1), "caption", "a red star moves left")
    memory.add("v", clip(2), "caption", "a blue ring")
    memory.add("w", clip(3, "w"), "caption", "a red star in another video")
    return memory


def test_words_find_their_clip(memory: TextMemory):
    (hit,) = memory.search("v", "Stars", 5)
    assert (hit.clip, hit.kind, hit.text) == (clip(1), "caption", "a red star moves left")


def test_any_word_or_every_word(memory: TextMemory):
    assert len(memory.search("v", "red ring", 5)) == 2
    assert memory.search("v", "red ring", 5, every_word=True) == []
    assert len(memory.search("v", "red ring", 1)) == 1


def test_a_newer_note_replaces_the_older(memory: TextMemory):
    memory.add("v", clip(1), "caption", "a green cross")
    memory.add("v", clip(1), "note", "green again")
    assert memory.search("v", "red", 5) == []
    assert len(memory.search("v", "green", 5)) == 2


@given(st.text())
def test_no_query_breaks_it(query: str):
    memory = TextMemory()
    memory.add("v", clip(1), "caption", query)
    memory.search("v", query, 3)
    memory.search("v", f'"{query}" NEAR(* AND', 3, every_word=True)


def test_file_is_shared_and_survives(tmp_path: Path):
    path = tmp_path / "deep" / "texts.sqlite"
    one, two = TextMemory(path), TextMemory(path)
    one.add("v", clip(1), "caption", "a red star")
    assert len(two.search("v", "red", 1)) == 1
    one.close()
    two.close()
    assert len(TextMemory(path).search("v", "red", 1)) == 1


def test_a_file_that_is_something_else_is_named(tmp_path: Path):
    path = tmp_path / "texts.sqlite"
    path.write_text("this is not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(DataError, match=r"texts\.sqlite.*remove the file"):
        TextMemory(path)


def test_threads_share_one_memory():
    from concurrent.futures import ThreadPoolExecutor

    memory = TextMemory()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: memory.add("v", clip(i), "caption", f"word{i} red"), range(100)))
        found = list(pool.map(lambda i: len(memory.search("v", f"word{i}", 5)), range(100)))
    assert found == [1] * 100 and len(memory.search("v", "red", 1000)) == 100

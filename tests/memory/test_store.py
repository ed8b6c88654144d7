"""The store: what it gives back is what was put there, or nothing."""

from pathlib import Path

import numpy as np
import pytest
from playhead.memory.store import ArrayStore

ARRAYS = {"times_s": np.arange(5.0), "vectors": np.ones((5, 3), np.float32), "empty": np.empty((0, 3), np.float32)}


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, lines: list[str]) -> ArrayStore:
    return ArrayStore(tmp_path, lines.append)


def test_round_trip(store: ArrayStore, lines: list[str]):
    store.save("a", ARRAYS)
    loaded = store.load("a")
    assert loaded is not None and loaded.keys() == ARRAYS.keys()
    assert all(np.array_equal(loaded[name], ARRAYS[name]) for name in ARRAYS)
    assert store.load("b") is None and lines == []


def test_nowhere_keeps_nothing(lines: list[str]):
    store = ArrayStore(None, lines.append)
    store.save("a", ARRAYS)
    store.drop("a")
    assert store.load("a") is None and lines == []


def test_every_damaged_byte_is_noticed(store: ArrayStore, tmp_path: Path, lines: list[str]):
    """A flipped byte anywhere either changes nothing that is read, or the file counts as absent."""
    store.save("a", ARRAYS)
    path = tmp_path / "a.npz"
    sound = path.read_bytes()
    for at in range(0, len(sound), 7):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x55]) + sound[at + 1 :])
        loaded = store.load("a")
        assert loaded is None or all(np.array_equal(loaded[name], ARRAYS[name]) for name in ARRAYS)
    assert lines and all("making it anew" in line and "\n" not in line for line in lines)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(100)])
def test_another_file_counts_as_absent(store: ArrayStore, tmp_path: Path, lines: list[str], content: bytes):
    (tmp_path / "a.npz").write_bytes(content)
    assert store.load("a") is None and len(lines) == 1


def test_pickles_are_never_read(store: ArrayStore, tmp_path: Path, lines: list[str]):
    np.savez(tmp_path / "a.npz", header=np.array([{"a": 1}], dtype=object))
    assert store.load("a") is None and len(lines) == 1


def test_a_file_under_another_name_is_foreign(store: ArrayStore, tmp_path: Path, lines: list[str]):
    store.save("a", ARRAYS)
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    assert store.load("b") is None
    assert "made for something else" in lines[0]


def test_a_place_that_cannot_be_written_is_said_not_raised(tmp_path: Path, lines: list[str]):
    (tmp_path / "file").write_text("in the way")
    store = ArrayStore(tmp_path / "file", lines.append)
    store.save("a", ARRAYS)
    assert len(lines) == 1 and "cannot be saved" in lines[0]

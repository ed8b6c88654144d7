"""Shown: a frame is decoded once, and again when the store no longer has it; threads share one decoding."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from playhead.core.decoders.contract import DecodedFrame
from playhead.core.frames import FrameStore
from playhead.core.nouns import Frame
from playhead.core.shown import Shown

LIMIT_S = 60.0
"""Only a hang takes so long."""


def picture(value: int) -> DecodedFrame:
    return DecodedFrame(timestamp_s=float(value), pixels=np.full((4, 6, 3), value, np.uint8))


class Film:
    """Counts what is decoded; the key of a frame is its number."""

    def __init__(self, store: FrameStore) -> None:
        self.store, self.decoded = store, []

    def frames(self, *numbers: int) -> list[Frame]:
        return self.store.shown.frames(numbers, lambda places: [self._one(numbers[i]) for i in places])

    def _one(self, number: int) -> Frame:
        self.decoded.append(number)
        return self.store.put("v", picture(number))


@pytest.mark.parametrize("on_disk", [False, True])
def test_decoded_once_and_in_the_order_asked(on_disk: bool, tmp_path: Path) -> None:
    film = Film(FrameStore(tmp_path if on_disk else None))
    assert [f.timestamp_s for f in film.frames(3, 1, 3)] == [3.0, 1.0, 3.0]
    assert [f.timestamp_s for f in film.frames(1, 2, 3)] == [1.0, 2.0, 3.0]
    assert film.decoded == [3, 1, 2] and film.store.shown.made == 3


def test_what_left_memory_is_decoded_again() -> None:
    store = FrameStore(memory_bytes=2 * picture(0).pixels.nbytes)
    film = Film(store)
    for number in (0, 1, 2, 0):
        (frame,) = film.frames(number)
        assert (store.pixels(frame) == number).all()
    assert film.decoded == [0, 1, 2, 0]
    film.frames(2)
    film.frames(5)
    film.frames(2)
    assert film.decoded == [0, 1, 2, 0, 5], "what was asked for again counts as used, and stays"


def test_what_left_memory_but_lies_on_disk_is_not_and_a_file_that_went_is_written_again(tmp_path: Path) -> None:
    store = FrameStore(tmp_path, memory_bytes=2 * picture(0).pixels.nbytes)
    film = Film(store)
    (first, *_) = film.frames(0, 1, 2)
    assert (store.pixels(film.frames(0)[0]) == 0).all() and film.decoded == [0, 1, 2]
    for file in tmp_path.rglob(f"{first.sha256}.png"):
        file.unlink()
    film.frames(0)
    assert film.decoded == [0, 1, 2, 0] and first in FrameStore(tmp_path)


def test_it_is_bounded() -> None:
    shown, made = Shown(lambda frame: True, entries=3), []

    def make(places: list[int]) -> list[Frame]:
        made.extend(places)
        return [Frame(video_id="v", timestamp_s=0.0, sha256="0", width=1, height=1) for _ in places]

    for key in (1, 2, 3, 1, 4, 1, 2):
        shown.frames([key], make)
    assert len(made) == 5, "2 was asked for longest ago, and went"


def test_threads_that_ask_at_once_wait_for_one_decoding() -> None:
    store, begun, may_end = FrameStore(), threading.Event(), threading.Event()
    decoded = []

    def slow(places: list[int]) -> list[Frame]:
        decoded.append(len(places))
        begun.set()
        assert may_end.wait(LIMIT_S)
        return [store.put("v", picture(7)) for _ in places]

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(store.shown.frames, ["a"], slow)
        assert begun.wait(LIMIT_S)
        others = [pool.submit(store.shown.frames, ["a"], slow) for _ in range(3)]
        may_end.set()
        frames = {f.result(LIMIT_S)[0].sha256 for f in [first, *others]}
    assert len(frames) == 1 and decoded == [1]


def test_anothers_failure_is_not_ones_own() -> None:
    store, begun, may_fail = FrameStore(), threading.Event(), threading.Event()

    def fails(places: list[int]) -> list[Frame]:
        begun.set()
        assert may_fail.wait(LIMIT_S)
        raise OSError("gone")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.shown.frames, ["a"], fails)
        assert begun.wait(LIMIT_S)
        second = pool.submit(store.shown.frames, ["a"], lambda places: [store.put("v", picture(1))])
        may_fail.set()
        with pytest.raises(OSError, match="gone"):
            first.result(LIMIT_S)
        assert second.result(LIMIT_S)[0].timestamp_s == 1.0
    assert store.shown.frames(["a"], fails)[0].timestamp_s == 1.0

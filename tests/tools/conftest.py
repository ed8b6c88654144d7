"""A toolbox's surroundings: a real film of 101 s with red at 20-24 and 74-77 and blue at 60-64, indexed."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from colour_films import colour_encoder, film
from playhead.core.frames import FrameStore
from playhead.core.nouns import Frame
from playhead.core.video import Video
from playhead.memory.index import ClipIndex
from playhead.memory.text import TextMemory
from playhead.tools.contract import ToolContext

__all__ = ["colour_encoder", "film"]

STORY = [("grey", 20), ("red", 4), ("grey", 36), ("blue", 4), ("grey", 10), ("red", 3), ("grey", 24)]


class ColourCaptioner:
    """Says which channel of a frame is brightest: a captioner that really looks at the pixels."""

    def __init__(self, store: FrameStore):
        self._store = store

    async def caption(self, frames: Sequence[Frame]) -> list[str]:
        means = [self._store.pixels(f).reshape(-1, 3).mean(axis=0) for f in frames]
        return [
            "a grey wall" if m.max() - m.min() < 40 else f"a {('red', 'green', 'blue')[m.argmax()]} wall" for m in means
        ]


@pytest.fixture(scope="session")
def video(film: Callable[..., Path]) -> Video:
    return Video.open(film(STORY))


@pytest.fixture
def ctx(video: Video, colour_encoder: Any) -> ToolContext:
    store = FrameStore()
    return ToolContext(
        video=video,
        store=store,
        index=ClipIndex.build(video, colour_encoder),
        texts=TextMemory(),
        captioner=ColourCaptioner(store),
        frames_left=lambda: 100,
    )


@pytest.fixture
def with_frames(ctx: ToolContext) -> Callable[[int], ToolContext]:
    """The same context with so many frames left."""
    return lambda n: dataclasses.replace(ctx, frames_left=lambda: n)

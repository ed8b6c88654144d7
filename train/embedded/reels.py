"""Training frames with real codec artefacts: short films of many quick events, encoded and decoded in memory.

A reel is a scene whose events last 2 to 5 frames with empty gaps between them, about a quarter of all frames. It goes
through the same encoder settings as a full film and the same resize as the image processor of the embedded model, so
what is learnt here is what is seen there. Reels follow from their seed, up to a few levels of brightness (the encoder
is not exact to the bit from run to run). Seeds from 7,000,000 up are held out: neither
training nor tuning touches them.

A rich reel (`shoot_rich`) is filmed like a rich film: larger, and with small digits. Half of what it gives are whole frames, in
which no small digit can be read, and half are crops around where an object is, cut and resized as `crop_frame` and the
processor do it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...tools.crop_frame import cut_out
from ...world.film import encode
from ...world.render import render
from ...world.scene import (
    COLOURS,
    CROP,
    FAR,
    FILM_FPS,
    MOTIONS,
    NEAR,
    RICH_SIZE,
    SHAPES,
    Event,
    Scene,
    cell_box,
    position_bin,
)
from ...world.script import SMALL
from .codes import Percept, crop_percept, percept_at

REEL_FRAMES = 96
VALIDATION_SEED = 6_900_000
HELD_OUT_SEED = 7_000_000
INPUT_SIZE = 64
MISREAD = 0.01
"""How far over the edge of a column or row a centre may lie and still be taken to lie in it; the digit is then in the crop."""


@dataclass(frozen=True, slots=True)
class Reel:
    """Decoded frames and what they show."""

    pixels: Tensor
    """(N, 3, 64, 64) uint8."""
    percepts: list[Percept | None]


Shoot = Callable[[int], Reel]
"""Films the reel of a seed: `REEL_FRAMES` frames of it."""


def reel_scene(seed: int, frames: int = REEL_FRAMES) -> tuple[Scene, list[float]]:
    """A scene of quick events somewhere in a long film, and the times of its frames."""
    if not 0 <= seed < HELD_OUT_SEED:
        raise ValueError(f"reel seed {seed} is held out; use seeds below {HELD_OUT_SEED}")
    rng = np.random.default_rng([seed, 7])
    first = int(rng.integers(0, 3600 * FILM_FPS))
    events: list[Event] = []
    at = int(rng.integers(0, 3))
    while at < frames:
        length = int(rng.integers(2, 6))
        events.append(_event(rng, (first + at) / FILM_FPS, (first + min(frames, at + length)) / FILM_FPS))
        at += length + int(rng.choice([0, 1, 1, 2, 2]))
    scene = Scene(seed=seed, duration_s=(first + frames) / FILM_FPS, events=tuple(events))
    return scene, [(first + i) / FILM_FPS for i in range(frames)]


def _event(rng: np.random.Generator, start_s: float, end_s: float) -> Event:
    motion = str(rng.choice(MOTIONS))
    travel = rng.uniform(0.05, 0.2) * (end_s - start_s)
    dx, dy = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}[motion]
    x0, y0 = rng.uniform(NEAR, FAR, 2)
    return Event(
        start_s=start_s,
        end_s=end_s,
        shape=str(rng.choice(SHAPES)),
        colour=str(rng.choice(COLOURS)),
        motion=motion,
        x0=float(x0),
        y0=float(y0),
        x1=float(np.clip(x0 + dx * travel, NEAR, FAR)),
        y1=float(np.clip(y0 + dy * travel, NEAR, FAR)),
        size=float(rng.uniform(0.4, 0.5)),
        digit=int(rng.integers(10)) if rng.random() < 0.5 else None,
    )


def shoot(seed: int, frames: int = REEL_FRAMES) -> Reel:
    """Film the reel of `seed` and decode it again."""
    scene, times = reel_scene(seed, frames)
    return Reel(resize(_filmed(scene, times)), [percept_at(scene.event_at(t), t) for t in times])


def shoot_rich(seed: int, frames: int = REEL_FRAMES, crops: float = 0.5) -> Reel:
    """Film the reel of `seed` as a rich film; a share of `crops` of what it gives is cut out, the rest is whole frames."""
    count = round(frames * max(crops, 1 - crops))
    scene, times = reel_scene(seed, count)
    rng = np.random.default_rng([seed, 8])
    scene = replace(scene, events=tuple(_with_small(e, rng) for e in scene.events), size=RICH_SIZE)
    pixels = _filmed(scene, times)
    parts, percepts = [resize(pixels[: round(frames * (1 - crops))])], [percept_at(scene.event_at(t), t) for t in times]
    percepts = percepts[: len(parts[0])]
    for i in rng.permutation(count)[: frames - len(percepts)]:
        box = _box_near(scene.event_at(times[i]), times[i], rng)
        cut, sides = cut_out(pixels[i].permute(1, 2, 0).numpy(), box, RICH_SIZE)
        parts.append(resize(torch.from_numpy(cut).permute(2, 0, 1)[None]))
        percepts.append(crop_percept(scene.event_at(times[i]), times[i], sides))
    return Reel(torch.cat(parts), percepts)


def _with_small(event: Event, rng: np.random.Generator) -> Event:
    """Fewer large digits than in a plain reel, and small ones instead."""
    if event.digit is not None and rng.random() < 0.5:
        return event
    return replace(event, digit=None, small_digit=int(rng.integers(10)) if rng.random() < SMALL else None)


def _box_near(event: Event | None, t_s: float, rng: np.random.Generator) -> list[float]:
    """The box that whoever looks for a small digit asks for: that of the column and row of the object's centre, a place near
    the edge of one being taken for the next now and then. Anywhere, where there is no object."""
    x, y = rng.uniform(NEAR, FAR, 2) if event is None else np.add(event.position(t_s), rng.uniform(-MISREAD, MISREAD, 2))
    return [float(side) for side in cell_box(position_bin(x), position_bin(y), CROP)]


def _filmed(scene: Scene, times: list[float]) -> Tensor:
    """The scene at `times`, encoded and decoded again: (N, 3, H, W) uint8."""
    file = io.BytesIO()
    encode((render(scene, t) for t in times), file, fps=scene.fps)
    file.seek(0)
    pixels = decode(file)
    if len(pixels) != len(times):
        raise ValueError(f"reel {scene.seed}: {len(times)} frames went in, {len(pixels)} came out")
    return pixels


def mixed(rich: float, crops: float = 0.5) -> Shoot:
    """Films every reel, or a share of `rich` of them as rich ones; which, follows from the seed."""

    def shoot_either(seed: int) -> Reel:
        return shoot_rich(seed, crops=crops) if int((seed + 1) * rich) > int(seed * rich) else shoot(seed)

    return shoot_either


def decode(file: io.BytesIO) -> Tensor:
    """All frames of an MP4 as (N, 3, H, W) uint8."""
    import av

    with av.open(file, "r") as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def resize(pixels: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 to (N, 3, 64, 64) uint8, as the image processor does it: antialiased bicubic on uint8."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    size = [INPUT_SIZE, INPUT_SIZE]
    return transforms.resize(pixels.contiguous(), size, interpolation=InterpolationMode.BICUBIC, antialias=True)


class Pool:
    """A changing stock of decoded frames from which batches are drawn.

    It starts with `fill` reels; `refresh` films fresh ones, which take the place of the oldest once `capacity` reels
    are there. Filming costs about as much as a training step, so a frame is used a few times before it goes. Reel
    numbers count up from `next_reel`, which is all that a resumed run needs to know.
    """

    def __init__(self, seed: int, next_reel: int = 0, fill: int = 60, capacity: int = 600, film: Shoot = shoot) -> None:
        self.seed, self.next_reel, self.capacity, self._film = seed, next_reel, capacity, film
        self._debt = 0.0
        # One block for all frames: thousands of small ones between the films' large ones would tear the heap to pieces.
        self._pixels = torch.empty((capacity * REEL_FRAMES, 3, INPUT_SIZE, INPUT_SIZE), dtype=torch.uint8)
        self._percepts: list[Percept | None] = []
        for _ in range(fill):
            self._shoot()

    def _shoot(self) -> None:
        reel = self._film(self.seed + self.next_reel)
        at = len(self._percepts)
        if at == len(self._pixels):
            at = self.next_reel % self.capacity * REEL_FRAMES
        self._pixels[at : at + REEL_FRAMES] = reel.pixels
        self._percepts[at : at + REEL_FRAMES] = reel.percepts
        self.next_reel += 1

    def refresh(self, frames: float) -> None:
        """Film as many reels as `frames` frames a call amount to over time."""
        self._debt += frames
        while self._debt >= REEL_FRAMES:
            self._debt -= REEL_FRAMES
            self._shoot()

    @property
    def filmed(self) -> int:
        """Frames filmed since the first run of this seed."""
        return self.next_reel * REEL_FRAMES

    def batch(self, rng: np.random.Generator, size: int) -> tuple[Tensor, list[Percept | None]]:
        """`size` random frames, (size, 3, 64, 64) uint8, and what they show."""
        picks = rng.integers(len(self._percepts), size=size)
        return self._pixels[torch.from_numpy(picks)], [self._percepts[i] for i in picks]


def validation_reels(count: int, first: int = VALIDATION_SEED, film: Shoot = shoot) -> Iterator[Reel]:
    """`count` reels that training never sees."""
    for seed in range(first, first + count):
        yield film(seed)

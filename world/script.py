"""Writing a scene: which events happen when, such that every kind of question has one right answer.

    make_scene(seed, minutes) -> Scene                   # a pure function of its arguments
    make_scene(seed, minutes, rich=True) -> Scene        # the same events, with small digits and talk
    make_scene(seed, minutes, haze=0.4) -> Scene         # the same events, fainter

Guards against shortcuts: the answers are drawn before the events, uniformly, so that no wording and no single frame
tells them; distractors share a colour or a shape with what is asked for.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .scene import COLOURS, FAR, MOTIONS, NEAR, RICH_SIZE, SHAPES, Event, Scene
from .talk import make_lines

HELD_OUT_SEED = 7_000_000
"""World seeds from here on are for checks by others: never trained, tuned or debugged on."""
MIN_GAP_S = 8.0
AFTER_GAP_S = (8.0, 36.0)
SMALL = 0.7
"""Share of the objects without a large digit that carry a small one in a rich scene."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cast:
    """Who plays which part in a scene; indices into `Scene.events` in order of time."""

    scene: Scene
    odd: int
    """The only event with its shape (or its colour): the target of "attribute"."""
    odd_by: str
    counted: tuple[int, ...]
    """All appearances of the counted object."""
    lone: tuple[int, ...]
    """Events whose name appears once in the video, the odd one left out."""
    leader: int
    """An event whose next event comes soon; both names appear once."""


def make_cast(seed: int, minutes: float, *, rich: bool = False, haze: float = 0.0) -> Cast:
    """The scene of `seed` with its cast. A rich one has the events of the plain one, and more on them; `haze` changes how they
    look only.

    Raises:
        ValueError: under 4 minutes there is no room for rare events; or a haze through which nothing is seen.
    """
    if not 0 <= haze < 1:
        raise ValueError(f"haze is a share from 0 (clear) to below 1; got {haze:g}")
    if minutes < 4:
        raise ValueError(f"a world video needs at least 4 minutes for its events; got {minutes}")
    rng = random.Random(f"playhead-world-{seed}")
    duration_s = round(minutes * 60)
    odd_by = rng.choice(("shape", "colour"))
    special = (rng.choice(COLOURS), rng.choice(SHAPES))
    by_shape = int(odd_by == "shape")
    names: list[tuple[str, str]] = [
        n for n in itertools.product(COLOURS, SHAPES) if n[by_shape] != special[by_shape]
    ]
    rng.shuffle(names)
    counted_name, lone_names = names[0], _with_relatives(names[0], names[1:], rng)[: rng.randint(7, 9)]
    parts: list[tuple[str, tuple[str, str]]] = [("odd", special)]
    parts += [("counted", counted_name)] * rng.randint(1, 4)
    parts += [("lone", name) for name in lone_names]
    rng.shuffle(parts)
    lead = rng.choice([i for i in range(len(parts) - 1) if parts[i][0] == "lone" and parts[i + 1][0] != "counted"] or [-1])
    if lead < 0:  # no such neighbours in this shuffle: put two lone ones side by side at the start
        parts.sort(key=lambda p: p[0] != "lone")
        lead = 0
    starts = _starts(rng, duration_s, len(parts), lead)
    events = [_event(rng, name, start) for (_, name), start in zip(parts, starts, strict=True)]
    role = [p[0] for p in parts]
    lone = [i for i, r in enumerate(role) if r == "lone"]
    if all(events[i].digit is None for i in lone):  # rare, and there would be no digit to ask for
        events[lone[0]] = replace(events[lone[0]], digit=rng.randrange(10))
    scene = Scene(seed=seed, duration_s=float(duration_s), events=tuple(events), haze=haze)
    return Cast(
        scene=_enriched(scene, lone) if rich else scene,
        odd=role.index("odd"),
        odd_by=odd_by,
        counted=tuple(i for i, r in enumerate(role) if r == "counted"),
        lone=tuple(lone),
        leader=lead,
    )


def make_scene(seed: int, minutes: float, *, rich: bool = False, haze: float = 0.0) -> Scene:
    return make_cast(seed, minutes, rich=rich, haze=haze).scene


def scene_of(meta: Mapping[str, str]) -> Scene:
    """The scene that a task of the world is about, from the task's `meta`."""
    rich, haze = meta.get("edition") == RICH, float(meta.get("haze", 0.0))
    return make_scene(int(meta["seed"]), float(meta["minutes"]), rich=rich, haze=haze)


RICH = "rich"


def _enriched(scene: Scene, lone: list[int]) -> Scene:
    """Small digits and talk, from random numbers of their own, so that what the plain scene shows stays as it is."""
    rng = random.Random(f"playhead-world-rich-{scene.seed}")
    bare = [i for i, e in enumerate(scene.events) if e.digit is None]
    small = {i for i in bare if rng.random() < SMALL}
    bare_lone = [i for i in bare if i in lone]
    if bare_lone and not small & set(lone):
        small.add(rng.choice(bare_lone))
    events = tuple(
        replace(e, small_digit=rng.randrange(10)) if i in small else e for i, e in enumerate(scene.events)
    )
    lines = make_lines(rng, events, lone, scene.duration_s)
    return replace(scene, events=events, lines=lines, size=RICH_SIZE)


def _with_relatives(
    name: tuple[str, str], others: list[tuple[str, str]], rng: random.Random
) -> list[tuple[str, str]]:
    """`others`, those that share a colour or shape with `name` more likely first: they are its distractors."""
    return sorted(others, key=lambda o: rng.random() - 0.5 * (o[0] == name[0] or o[1] == name[1]))


def _starts(rng: random.Random, duration_s: int, n: int, lead: int) -> list[float]:
    """Start times on half seconds: at random, at least 8 s between events, the one after `lead` soon after it."""
    longest = 5.0
    lead_gap = rng.uniform(*AFTER_GAP_S)
    need = n * longest + (n - 2) * MIN_GAP_S + lead_gap + 12
    free = duration_s - need
    cuts = sorted(rng.uniform(0, free) for _ in range(n))
    starts: list[float] = []
    t = 6.0
    previous = 0.0
    for i in range(n):
        extra = 0.0 if i == lead + 1 else cuts[i] - previous
        previous = cuts[i] if i != lead + 1 else previous
        gap = lead_gap if i == lead + 1 else MIN_GAP_S
        t += extra + (gap if i else 0.0)
        starts.append(round(t * 2) / 2)
        t += longest
    return starts


def _event(rng: random.Random, name: tuple[str, str], start_s: float) -> Event:
    motion = rng.choice(MOTIONS)
    size = rng.uniform(0.40, 0.48)
    a, b = rng.uniform(NEAR, NEAR + 0.12), rng.uniform(FAR - 0.12, FAR)
    still_x, still_y = rng.uniform(NEAR, FAR), rng.uniform(NEAR, FAR)
    x0, y0, x1, y1 = still_x, still_y, still_x, still_y
    if motion == "right":
        x0, x1 = a, b
    elif motion == "left":
        x0, x1 = b, a
    elif motion == "down":
        y0, y1 = a, b
    elif motion == "up":
        y0, y1 = b, a
    return Event(
        start_s=start_s,
        end_s=start_s + rng.choice((4.0, 4.5, 5.0)),
        colour=name[0],
        shape=name[1],
        motion=motion,
        x0=x0, y0=y0, x1=x1, y1=y1,
        size=size,
        digit=rng.randrange(10) if rng.random() < 0.6 else None,
    )  # fmt: skip

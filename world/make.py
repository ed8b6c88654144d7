"""Making a world on disk: films and their tasks.

    make_world(out, videos, minutes, seed)  ->  out/videos/world-SEED.mp4 ... and out/tasks.jsonl

Video `i` is the scene of world seed `seed + i`; nothing else decides what it shows, but that questions about subtitles
and small digits are asked of rich films (the same events, and more on them; `world-SEED-...-rich.mp4`), and that all films may
be hazy (`world-SEED-...-haze0.4.mp4`). A film that is there already is kept, so a killed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..core.nouns import Task
from ..core.tasks import write_tasks
from ..core.video import content_hash
from .film import write_film
from .questions import KINDS, RICH_KINDS, check_kinds, make_tasks
from .script import make_cast

Progress = Callable[[float, str], None]


def make_world(
    out: Path,
    videos: int,
    minutes: float | Sequence[float],
    seed: int,
    progress: Progress | None = None,
    draws: int = 1,
    kinds: Sequence[str] = KINDS,
    repeats: bool = True,
    haze: float = 0.0,
) -> Path:
    """Film `videos` scenes and write their tasks; returns the path of `tasks.jsonl`.

    Args:
        out: folder to make the world in.
        videos: how many films.
        minutes: length of each film; several lengths are taken in turn.
        seed: world seed of the first film.
        draws: how many times a question of each kind is drawn for each film.
        kinds: the kinds of questions (`questions.ALL_KINDS` has them all); the first seven are asked of plain films unless one
            that needs rich films is among them.
        repeats: a later draw may ask about the same moments of a film again, in other words or with other options, which is
            practice but no new test.
        haze: share of every object that the background takes, 0 to below 1.
        progress: called with the share done (0 to 1) and the name of the film in work.

    Raises:
        ValueError: no videos asked for, a film shorter than 4 minutes, an unknown kind, or a haze that hides all.
    """
    if videos < 1:
        raise ValueError(f"a world needs at least one video; got {videos}")
    lengths = [minutes] if isinstance(minutes, (int, float)) else list(minutes)
    check_kinds(kinds)
    rich = any(kind in RICH_KINDS for kind in kinds)
    casts = [make_cast(seed + i, lengths[i % len(lengths)], rich=rich, haze=haze) for i in range(videos)]
    tasks: list[Task] = []
    look = ("-rich" if rich else "") + (f"-haze{haze:g}" if haze else "")
    for i, cast in enumerate(casts):
        name = f"videos/world-{cast.scene.seed}-{cast.scene.duration_s:.0f}s{look}.mp4"
        path = out / name
        if not path.exists():
            write_film(cast.scene, path, _part(progress, i, videos, path.name))
        video_id = content_hash(path)
        asked = [task for draw in range(draws) for task in make_tasks(cast, name, video_id, draw, kinds)]
        tasks += asked if repeats else _distinct(asked)
    write_tasks(out / "tasks.jsonl", tasks)
    if progress:
        progress(1.0, "done")
    return out / "tasks.jsonl"


def _distinct(tasks: Sequence[Task]) -> list[Task]:
    """The first of those of one kind about the same moments."""
    first: dict[object, Task] = {}
    for task in tasks:
        first.setdefault((task.kind, task.evidence), task)
    return list(first.values())


def _part(progress: Progress | None, index: int, total: int, name: str) -> Callable[[float], None] | None:
    if progress is None:
        return None
    return lambda share: progress((index + share) / total, name)

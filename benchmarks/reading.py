"""What does a model of the world misread? Its notes about the frames that it was shown, against the scene.

    playhead eval world --data world --out run
    python -m playhead.benchmarks.reading run [RUN ...]

A note is a line of a thought in the oracle's notation (`world/oracle.py`): `474 cyan ring x3 y0` about a frame of a closer
look, named by its second, `474 cyan ring yes` about the frame of the hit that begins there. The truth is what the scene
shows at the frame's own time.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from ..core.nouns import Message
from ..core.trajectory import Trajectory, Turn, read_trajectories
from ..world.observed import Zoom, read
from ..world.scene import COLOURS, SHAPES
from ..world.script import scene_of

NOTE = re.compile(rf"(\d+) (?:none|nothing|({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}))\b")
Object = tuple[str, str]


class Reading(Enum):
    """What a note made of a frame; the value is what people are told."""

    RIGHT = "right"
    SHAPE = "another shape"
    COLOUR = "another colour"
    BOTH = "another shape and colour"
    MISSED = "nothing for something"
    INVENTED = "something for nothing"
    EMPTY = "nothing for nothing"


def judge(said: Object | None, there: Object | None) -> Reading:
    """Objects as (colour, shape), None for nothing."""
    if there is None:
        return Reading.EMPTY if said is None else Reading.INVENTED
    if said is None:
        return Reading.MISSED
    if said[0] == there[0]:
        return Reading.RIGHT if said[1] == there[1] else Reading.SHAPE
    return Reading.COLOUR if said[1] == there[1] else Reading.BOTH


def notes(trajectory: Trajectory) -> Iterator[tuple[bool, Object | None, Object | None]]:
    """(of a closer look, what is said, what is there) of each frame that has a note."""
    scene = scene_of(trajectory.task.meta)
    for turn, following in zip(trajectory.turns, trajectory.turns[1:], strict=False):
        closer, frames = _shown(turn)
        for note in filter(None, map(NOTE.match, following.thought.splitlines())):
            frame = next((f for f in frames if f[0] == int(note[1])), None)
            if frame is not None:
                frames.remove(frame)  # the next note of that second is about the next frame of it
                event = scene.event_at(frame[1])
                yield closer, (note[2], note[3]) if note[2] else None, (event.colour, event.shape) if event else None


def _shown(turn: Turn) -> tuple[bool, list[tuple[int, float]]]:
    """(whether it is a closer look, the second that a note names and the time of each frame) of a lone search or zoom."""
    if len(turn.observations) != 1:
        return False, []
    seen = read(Message(role="tool", content=turn.observations[0].content))
    if isinstance(seen, Zoom):
        return True, [(int(f.timestamp_s), f.timestamp_s) for f in seen.frames]
    if isinstance(seen, list):
        return False, [(int(hit.start_s), hit.frame.timestamp_s) for hit in seen]
    return False, []


def count(path: Path) -> dict[bool, Counter[Reading]]:
    """By whether it was a closer look."""
    counted = {False: Counter[Reading](), True: Counter[Reading]()}
    for trajectory in read_trajectories(path):
        for closer, said, there in notes(trajectory):
            counted[closer][judge(said, there)] += 1
    return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of `playhead eval world`")
    for run in parser.parse_args().runs:
        for closer, found in count(run / "trajectories.jsonl").items():
            told = ", ".join(f"{found[kind]} {kind.value}" for kind in Reading)
            print(f"{run}, {'closer looks' if closer else 'hits'}: {told}")


if __name__ == "__main__":
    main()

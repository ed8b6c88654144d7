"""The note that the embedded models know only their own world: said whenever they meet another video.

A world film says of itself what it is, in the comment of its MP4 header (`world.film.TAG`). The mark is looked for as plain
bytes at the file's ends, where the header of an MP4 file lies; a film that was encoded anew has lost it, and gets the note.
"""

from __future__ import annotations

from pathlib import Path

from .options import aside

_REACH = 4 << 20
"""Bytes looked through at either end: the header of a film of several hours fits in."""

NOTE = (
    "the embedded models know only playhead's own world (coloured shapes on moving backgrounds): what they say of this "
    "video means nothing. Give a real model with --model and a real encoder with --encoder."
)


def is_world_film(path: Path) -> bool:
    from ..world.film import TAG

    with path.open("rb") as file:
        if TAG.encode() in file.read(_REACH):
            return True
        end = file.seek(0, 2)
        file.seek(max(0, end - _REACH))
        return TAG.encode() in file.read(_REACH)


def embedded_only(path: Path) -> bool:
    """Say the note on stderr when the video at `path` is none of the world's; returns whether it was said."""
    if is_world_film(path):
        return False
    aside().print(f"playhead: note: {NOTE}", markup=False)
    return True

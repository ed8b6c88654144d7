"""The notes that the embedded model and the embedded encoder know only their own world: said when they meet another video.

A world film says of itself what it is, in the comment of its MP4 header (`world.film.TAG`). The mark is looked for as plain
bytes at the file's ends, where the header of an MP4 file lies; a film that was encoded anew has lost it, and gets the note.
"""

from __future__ import annotations

from pathlib import Path

from .options import tell

_REACH = 4 << 20
"""Bytes looked through at either end: the header of a film of several hours fits in."""

_WORLD = "knows only playhead's own world (coloured shapes on moving backgrounds)"
MODEL_NOTE = f"the embedded model {_WORLD}: what it says of this video means nothing. Give a real one with --model."
ENCODER_NOTE = f"the embedded encoder {_WORLD}: what it finds in this video means nothing. Give a real one with --encoder."


def is_world_film(path: Path) -> bool:
    from ..world.film import TAG

    with path.open("rb") as file:
        if TAG.encode() in file.read(_REACH):
            return True
        end = file.seek(0, 2)
        file.seek(max(0, end - _REACH))
        return TAG.encode() in file.read(_REACH)


def embedded_only(path: Path, *, model: bool = False, encoder: bool = False) -> tuple[str, ...]:
    """Say on stderr what holds of those in use when the video at `path` is none of the world's; returns what was said."""
    notes = (MODEL_NOTE,) * model + (ENCODER_NOTE,) * encoder
    if not notes or is_world_film(path):
        return ()
    for note in notes:
        tell(f"playhead: note: {note}")
    return notes

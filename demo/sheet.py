"""Contact sheet: the frames of search hits in one picture, best first, each with its stretch and its score."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import PlayheadError
from ..core.video import Video
from .timeline import clock

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

    from ..memory.index import Hit

CELL_W, GAP, TEXT_H, HEAD_H = 240, 14, 40, 46
_PAPER, _INK, _SOFT = (250, 249, 246), (29, 33, 41), (102, 112, 133)


def write_sheet(video: Video, query: str, hits: Sequence[Hit], path: Path, columns: int = 4) -> Path:
    """Write the frames at the hits' best moments as a PNG (beside, then renamed).

    Raises:
        PlayheadError: the file cannot be written.
    """
    from PIL import Image, ImageDraw

    columns = max(1, min(columns, len(hits)))
    rows = -(-len(hits) // columns)
    cell_h = max(2, round(CELL_W * video.height / video.width / 2) * 2)
    size = (GAP + columns * (CELL_W + GAP), HEAD_H + rows * (cell_h + TEXT_H + GAP))
    sheet = Image.new("RGB", (max(size[0], 420), size[1]), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _say(draw, (GAP, 12), f"{_plain(query)}  in  {_plain(video.path.name)}", 17, _INK)
    pictures = video.frames_at([h.best_s for h in hits], size=(CELL_W, cell_h))
    for i, (hit, picture) in enumerate(zip(hits, pictures, strict=True)):
        x, y = GAP + (i % columns) * (CELL_W + GAP), HEAD_H + (i // columns) * (cell_h + TEXT_H + GAP)
        sheet.paste(Image.fromarray(picture.pixels), (x, y))
        _say(draw, (x, y + cell_h + 4), f"{clock(hit.clip.start_s)} to {clock(hit.clip.end_s)}", 14, _INK)
        _say(draw, (x, y + cell_h + 22), f"frame at {hit.best_s:.1f} s, score {hit.score:.3f}", 12, _SOFT)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(beside, "PNG")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise PlayheadError(f"{path}: the contact sheet cannot be written ({error.strerror or error})") from None
    return path


def _say(draw: ImageDraw, at: tuple[int, int], text: str, size: int, colour: tuple[int, int, int]) -> None:
    from PIL import ImageFont

    draw.text(at, text, fill=colour, font=ImageFont.load_default(size))


def _plain(text: str) -> str:
    """One line that fits; what the built-in font lacks is shown as boxes by it."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"

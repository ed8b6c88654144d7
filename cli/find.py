"""`playhead index` and `playhead search`: the memory of a video, without a model that thinks."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import UsageProblem, aside, console, progress_bar, say, tell

if TYPE_CHECKING:
    from ..core.video import Video
    from ..memory.index import ClipIndex

_Video = Annotated[Path, typer.Argument(help="A video file.", metavar="VIDEO")]
_Encoder = Annotated[
    str, typer.Option(help="embedded (knows only playhead's own world), or MODEL_NAME:/path/to/weights of OpenCLIP.")
]
_Fps = Annotated[float, typer.Option(help="Frames per second that are embedded.")]
_Mode = Annotated[str, typer.Option(help="windows: stretches of 12 s. shots: from cut to cut.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def index(
    video: _Video, encoder: _Encoder = "embedded", fps: _Fps = 1.0, mode: _Mode = "windows", as_json: _Json = False
) -> None:
    """Make a video searchable, ahead of time: embed its frames with OpenCLIP and keep them.

    `ask` and `search` do the same when they first meet a video; a second time it is there. Indexes lie under
    $PLAYHEAD_HOME (or ~/.cache/playhead), and are made again when they are damaged.

    Examples:

        playhead index lecture.mp4
        playhead index lecture.mp4 --encoder ViT-B-32:/models/vit_b_32.safetensors --mode shots
    """
    from .note import embedded_only

    began = time.monotonic()
    opened, built = open_index(video, encoder, fps, mode)
    embedded_only(opened.path, encoder=encoder == "embedded")
    seconds = time.monotonic() - began
    if as_json:
        facts = {"video": str(video), "id": opened.id, "duration_s": opened.duration_s, "frames": len(built)}
        console().print_json(json.dumps({**facts, "seconds": round(seconds, 3)}))
    else:
        say(f"{opened.path.name}: {opened.duration_s:.1f} s, {len(built)} frames searchable ({seconds:.1f} s)")


def search(
    video: _Video,
    query: Annotated[str, typer.Argument(help='What to look for, such as "red star", or the path of a picture.')],
    k: Annotated[int, typer.Option("-k", help="How many moments.", min=1, max=100)] = 5,
    sheet: Annotated[Path | None, typer.Option(help="Where the contact sheet goes; by default beside you.")] = None,
    encoder: _Encoder = "embedded",
    fps: _Fps = 1.0,
    mode: _Mode = "windows",
    as_json: _Json = False,
) -> None:
    """Find the moments of a video that look like a text or a picture; print their times, draw a contact sheet.

    Examples:

        playhead search film.mp4 "red star"
        playhead search film.mp4 "a dog eats" -k 8 --encoder ViT-B-32:/models/vit_b_32.safetensors
        playhead search film.mp4 screenshot.png --json
    """
    from ..demo.sheet import write_sheet
    from ..demo.timeline import clock
    from .note import embedded_only

    if not query.strip():
        raise UsageProblem("the query is empty; say what to look for")
    opened, built = open_index(video, encoder, fps, mode)
    embedded_only(opened.path, encoder=encoder == "embedded")
    hits = built.search(_picture(query), k)
    path = write_sheet(opened, query, hits, sheet or Path(f"{opened.path.stem}-search.png"))
    if as_json:
        rows = [
            {"start_s": h.clip.start_s, "end_s": h.clip.end_s, "best_s": h.best_s, "score": round(h.score, 4)} for h in hits
        ]
        console().print_json(json.dumps({"video": str(video), "query": query, "hits": rows, "sheet": str(path)}))
        return
    for hit in hits:
        clip = hit.clip
        say(f"{clock(clip.start_s):>8} to {clock(clip.end_s):<8} {clip.start_s:8.1f}-{clip.end_s:<8.1f} score {hit.score:.3f}")
    say(f"contact sheet: {path}")


def open_index(path: Path, encoder: str, fps: float, mode: str) -> tuple[Video, ClipIndex]:
    """The video and its index, built with a progress bar where it is not there yet."""
    from ..core.home import cache_dir
    from ..core.video import Video
    from ..memory.encoder import load_encoder
    from ..memory.index import ClipIndex, IndexParams

    try:
        params = IndexParams(fps=fps, mode=mode)  # pyright: ignore[reportArgumentType]  it refuses an unknown mode
    except ValueError as error:
        raise UsageProblem(str(error)) from None
    video = Video.open(path)
    for warning in video.warnings:
        tell(f"playhead: {warning}")
    model = load_encoder(encoder)
    with progress_bar(aside()) as bar:
        row = bar.add_task("indexing", total=1.0)
        built = ClipIndex.build(
            video,
            model,
            params,
            root=cache_dir() / "index",
            progress=lambda share: bar.update(row, completed=share),
            report=lambda line: tell(f"playhead: {line}"),
        )
    return video, built


def _picture(query: str):
    """The query itself, or the pixels of the picture that it names."""
    path = Path(query)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".bmp"):
        return query
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UsageProblem(f"{query}: cannot be read as a picture ({error})") from None

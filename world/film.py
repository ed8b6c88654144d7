"""Filming a scene: an ordinary H.264 MP4 file, as a camera or an editor would leave it.

The stream has B-frames, a key frame about every 5 seconds and its index at the front, so seeking in it is as hard as in
any downloaded video. Frame i shows the scene at i / fps.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .render import render
from .scene import Scene

TAG = "playhead-world"
"""What stands in the comment of every film, so that a made-up film can be told from footage."""
CRF = 26
KEY_INTERVAL_S = 5


def film_times(scene: Scene) -> list[float]:
    """Presentation times of a film's frames, in seconds."""
    return [i / scene.fps for i in range(max(1, round(scene.duration_s * scene.fps)))]


def write_film(scene: Scene, path: str | Path, progress: Callable[[float], None] | None = None) -> Path:
    """Film `scene` into the MP4 file `path`; `progress` is called with the share done, 0 to 1.

    The file is written beside and renamed, so `path` never holds half a film.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    times = film_times(scene)

    def frames() -> Iterable[np.ndarray]:
        for i, t_s in enumerate(times):
            if progress is not None and i % 80 == 0:
                progress(i / len(times))
            yield render(scene, t_s)

    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        encode(frames(), beside, fps=scene.fps, faststart=True)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    if progress is not None:
        progress(1.0)
    return path


def encode(frames: Iterable[np.ndarray], sink: Path | BinaryIO, *, fps: int, faststart: bool = False) -> None:
    """Write (S, S, 3) uint8 frames as an H.264 MP4 into a file or a seekable binary stream.

    `faststart` moves the index to the front, which only works for a file.
    """
    import av
    from av.video.frame import VideoFrame

    target = str(sink) if isinstance(sink, Path) else sink
    options = {"movflags": "+faststart"} if faststart else {}
    with av.open(target, "w", format="mp4", options=options) as container:
        container.metadata["comment"] = TAG
        stream = None
        for pixels in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=fps)
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.thread_count = 1
                stream.options = {"preset": "veryfast", "crf": str(CRF), "g": str(KEY_INTERVAL_S * fps), "bf": "2"}
            container.mux(stream.encode(VideoFrame.from_ndarray(pixels, format="rgb24")))
        if stream is None:
            raise ValueError("a film needs at least one frame")
        container.mux(stream.encode(None))

"""Thumbnails: the frames of episodes as small JPEG data URIs, decoded again from the video at the frames' own times.

Trajectories hold no pixels. Where the video file is not at hand (or is another one by now), there are no thumbnails and
the reason is given; the page shows the times all the same.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..core.errors import VideoError
from ..core.nouns import Frame
from ..core.trajectory import Trajectory
from ..core.video import Video

WIDTH = 208
Thumbs = dict[tuple[str, float], str]
"""(video id, timestamp in seconds) -> data URI."""


def frames_shown(trajectory: Trajectory) -> list[Frame]:
    """Every frame of an episode: what the policy was shown, and what tools returned after its last turn."""
    return [*trajectory.frames, *(f for o in trajectory.observations for f in o.frames)]


def thumbnails(trajectories: Iterable[Trajectory], folder: Path | None = None, width: int = WIDTH) -> tuple[Thumbs, list[str]]:
    """The thumbnails of all frames, and a line for each video that could not be shown.

    Args:
        folder: where relative video paths count from (the folder of the trajectory file).
    """
    wanted: dict[str, dict[str, set[float]]] = {}
    for trajectory in trajectories:
        for frame in frames_shown(trajectory):
            wanted.setdefault(trajectory.task.video, {}).setdefault(frame.video_id, set()).add(frame.timestamp_s)
    thumbs: Thumbs = {}
    problems: list[str] = []
    for path, by_id in wanted.items():
        try:
            video = Video.open((folder or Path()) / path)
        except VideoError as error:
            problems.append(str(error))
            continue
        times = sorted(by_id.pop(video.id, set()))
        if by_id:
            problems.append(f"{path} is not the file that was asked about: its content has changed")
        height = max(2, round(width * video.height / max(1, video.width) / 2) * 2)
        for t, decoded in zip(times, video.frames_at(times, size=(width, height)), strict=True):
            thumbs[(video.id, t)] = jpeg_uri(decoded.pixels)
    return thumbs, problems


def jpeg_uri(pixels: np.ndarray, quality: int = 82) -> str:
    """(H, W, 3) uint8 as a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

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

from ..core.box import THOUSAND
from ..core.errors import VideoError
from ..core.nouns import Frame
from ..core.trajectory import Trajectory
from ..core.video import Video
from ..tools.crop_frame import cut_out

WIDTH = 208
Key = tuple[str, float, tuple[float, float, float, float] | None]
"""What is seen in a frame: video id, timestamp in seconds, and the part of the picture, where it is not all of it."""
Thumbs = dict[Key, str]
"""-> data URI."""


def thumb_key(frame: Frame) -> Key:
    return frame.video_id, frame.timestamp_s, frame.box


def frames_shown(trajectory: Trajectory) -> list[Frame]:
    """Every frame of an episode: what the policy was shown, and what tools returned after its last turn."""
    return [*trajectory.frames, *(f for o in trajectory.observations for f in o.frames)]


def thumbnails(trajectories: Iterable[Trajectory], folder: Path | None = None, width: int = WIDTH) -> tuple[Thumbs, list[str]]:
    """The thumbnails of all frames, and a line for each video that could not be shown.

    Args:
        folder: where relative video paths count from (the folder of the trajectory file).
    """
    wanted: dict[str, dict[str, set[Key]]] = {}
    for trajectory in trajectories:
        for frame in frames_shown(trajectory):
            wanted.setdefault(trajectory.task.video, {}).setdefault(frame.video_id, set()).add(thumb_key(frame))
    thumbs: Thumbs = {}
    problems: list[str] = []
    for path, by_id in wanted.items():
        try:
            video = Video.open((folder or Path()) / path)
        except VideoError as error:
            problems.append(str(error))
            continue
        keys = by_id.pop(video.id, set())
        if by_id:
            problems.append(f"{path} is not the file that was asked about: its content has changed")
        thumbs |= _whole(video, sorted(t for _, t, box in keys if box is None), width)
        thumbs |= {key: _part(video, key, width) for key in keys if key[2] is not None}
    return thumbs, problems


def _whole(video: Video, times: list[float], width: int) -> Thumbs:
    height = max(2, round(width * video.height / max(1, video.width) / 2) * 2)
    decoded = video.frames_at(times, size=(width, height))
    return {(video.id, t, None): jpeg_uri(frame.pixels) for t, frame in zip(times, decoded, strict=True)}


def _part(video: Video, key: Key, width: int) -> str:
    """What `crop_frame` cut out, from the video at its own size."""
    (decoded,) = video.frames_at([key[1]], None)
    return jpeg_uri(cut_out(decoded.pixels, [side * THOUSAND for side in key[2] or (0, 0, 1, 1)], width)[0])


def jpeg_uri(pixels: np.ndarray, quality: int = 82) -> str:
    """(H, W, 3) uint8 as a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

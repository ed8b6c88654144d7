"""Embed: a video's frames at a steady rate to unit vectors, in pieces that survive being killed.

The video is cut into pieces of `PIECE_FRAMES` sampling times. Each piece is saved as soon as it is done and is a pure
function of (video, encoder, fps, piece number): a build that was killed goes on at the first piece that is missing,
and two processes that build the same thing write the same pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..core.video import Video
from .encoder import Encoder
from .store import Arrays, ArrayStore, Report

PIECE_FRAMES = 256
BATCH = 32


def embed_video(
    video: Video,
    encoder: Encoder,
    fps: float,
    *,
    root: Path | None,
    progress: Callable[[float], None] | None,
    report: Report,
) -> tuple[np.ndarray, np.ndarray]:
    """Times and vectors of the frames shown at 0, 1/fps, 2/fps ... seconds; a frame shown twice stands once.

    Returns:
        times_s (N,) float64, strictly rising presentation times, and vectors (N, dim) float32 of unit norm.
    """
    store, key = ArrayStore(root, report), f"frames-{video.id}-{encoder.fingerprint}-{fps:g}fps"
    whole = store.load(key)
    if whole is not None:
        if _fits(whole, encoder.dim):
            return whole["times_s"], whole["vectors"]
        report(f"{store.path(key)}: arrays of the wrong shape, making it anew")
    piece_s = PIECE_FRAMES / fps
    n_pieces = max(1, math.ceil(video.readable_s / piece_s))
    pieces: list[Arrays] = []
    for i in range(n_pieces):
        start_s, end_s = i * piece_s, min(video.readable_s, (i + 1) * piece_s)
        piece = store.load(f"{key}.{i:04d}")
        if piece is None or not _fits(piece, encoder.dim):
            piece = _embed_stretch(video, encoder, fps, start_s, end_s, progress)
            # A video of one piece is done before it could be worth resuming.
            if n_pieces > 1:
                store.save(f"{key}.{i:04d}", piece)
        pieces.append(piece)
        if progress:
            progress(end_s / video.readable_s)
    whole = _join(pieces)
    store.save(key, whole)
    for i in range(n_pieces):
        store.drop(f"{key}.{i:04d}")
    return whole["times_s"], whole["vectors"]


def _embed_stretch(
    video: Video,
    encoder: Encoder,
    fps: float,
    start_s: float,
    end_s: float,
    progress: Callable[[float], None] | None,
) -> Arrays:
    times: list[float] = []
    rows: list[np.ndarray] = []
    batch: list[np.ndarray] = []
    for frame in video.read(start_s, end_s, fps=fps, size=decode_size(video, encoder.image_size)):
        times.append(frame.timestamp_s)
        batch.append(frame.pixels)
        if len(batch) == BATCH:
            rows.append(encoder.encode_images(batch))
            batch = []
            if progress:
                progress(min(1.0, frame.timestamp_s / video.readable_s))
    rows.append(encoder.encode_images(batch) if batch else np.empty((0, encoder.dim), np.float32))
    return {"times_s": np.array(times, np.float64), "vectors": np.concatenate(rows).astype(np.float32)}


def decode_size(video: Video, image_size: int) -> tuple[int, int] | None:
    """(width, height) to decode at: three times what the encoder sees on the shorter side, aspect kept; None for the
    video's own size. Large frames are scaled by the decoder, which is fast; the last, exact step is the encoder's."""
    shorter = min(video.width, video.height)
    if shorter <= 3 * image_size:
        return None
    scale = 3 * image_size / shorter
    return max(1, round(video.width * scale)), max(1, round(video.height * scale))


def _join(pieces: list[Arrays]) -> Arrays:
    times = np.concatenate([p["times_s"] for p in pieces])
    vectors = np.concatenate([p["vectors"] for p in pieces])
    # In a video slower than `fps`, one frame is shown at several sampling times.
    times, first = np.unique(times, return_index=True)
    return {"times_s": times, "vectors": np.ascontiguousarray(vectors[first])}


def _fits(arrays: Arrays, dim: int) -> bool:
    times, vectors = arrays.get("times_s"), arrays.get("vectors")
    return (
        times is not None
        and vectors is not None
        and times.dtype == np.float64
        and vectors.dtype == np.float32
        and times.ndim == 1
        and vectors.shape == (len(times), dim)
        and bool(np.isfinite(vectors).all())
    )

"""A decoded picture to upright RGB: orientation, pixel shape, colour.

Orientation follows the display matrix of the frame (quarter turns and mirrorings; ISO/IEC 14496-12, 6.2.2). Colour
conversion is swscale's, with the matrix and the range that the stream names, BT.601 limited where it names none
(as FFmpeg does). High dynamic range is not tone-mapped.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

MAX_PIXELS = 1 << 27
"""Larger pictures than 134 megapixels are refused: a header can claim a size that no memory holds."""


class Orientation(NamedTuple):
    """How to bring a stored picture upright: transpose first, then mirror rows and columns."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False


def orientation(frame: VideoFrame) -> Orientation:
    """The orientation that a frame's display matrix asks for, to the nearest quarter turn."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None or len(bytes(data)) < 36:
        return Orientation()
    a, b, _, c, d = struct.unpack("<5i", bytes(data)[:20])
    # A stored point (x, y) is shown at (a x + c y, b x + d y).
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(True, flip_rows=b < 0, flip_columns=c < 0)
    return Orientation(False, flip_rows=d < 0, flip_columns=a < 0)


def upright_size(frame: VideoFrame, pixel_shape: Fraction | None) -> tuple[int, int]:
    """(width, height) of the upright picture with square pixels; the width is stretched, as players do."""
    width, height = frame.width, frame.height
    if pixel_shape is not None and Fraction(1, 16) <= pixel_shape <= 16:
        width = max(1, round(width * pixel_shape))
    return (height, width) if orientation(frame).transpose else (width, height)


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 to (height, width, 3), bicubic, by the scaler that `Painter` uses; `size` is (width, height)."""
    if pixels.shape[1::-1] == size:
        return pixels
    return Painter(size).paint(VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"))


class Painter:
    """Turns frames into RGB arrays of one size, upright. Not thread-safe: it holds a scaler's state."""

    def __init__(self, size: tuple[int, int]) -> None:
        width, height = size
        if width < 1 or height < 1:
            raise ValueError(f"a frame size must be at least 1 by 1; got {width} by {height}")
        self._size = size
        self._scaler = VideoReformatter()

    def paint(self, frame: VideoFrame) -> np.ndarray:
        """(height, width, 3) uint8, C-contiguous."""
        turn = orientation(frame)
        width, height = self._size[::-1] if turn.transpose else self._size
        rgb = self._scaler.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            interpolation=Interpolation.BICUBIC,
            dst_color_range=ColorRange.JPEG,
            threads=1,  # frames are small: slicing one over threads costs more than it saves
        )
        pixels = rgb.to_ndarray()
        if turn.transpose:
            pixels = pixels.transpose(1, 0, 2)
        if turn.flip_rows:
            pixels = pixels[::-1]
        if turn.flip_columns:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels)

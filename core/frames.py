"""The frame store: pixels by the hash of their content. Trajectories hold `Frame`s; this gives their pixels back.

Least recently used frames leave memory when it is full. With a directory, every frame is also a PNG there (lossless, so
the hash still holds), written beside and renamed: several processes may share one. Without one, a frame that left
memory is gone, and asking for it is an error that says so.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np

from .decoders.contract import DecodedFrame
from .errors import PlayheadError
from .nouns import Frame
from .shown import Shown


class UnknownFrame(PlayheadError, LookupError):
    """A frame whose pixels the store does not have."""


def pixels_sha256(pixels: np.ndarray) -> str:
    """Hash of the size and the bytes of an (H, W, 3) uint8 image."""
    height, width, _ = pixels.shape
    digest = hashlib.sha256(f"{width}x{height}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


class FrameStore:
    """Content-addressed pixels, in memory and optionally under `root`. Safe to use from several threads."""

    def __init__(self, root: Path | None = None, memory_bytes: int = 256 << 20) -> None:
        self._root = root
        self._limit = memory_bytes
        self._held: OrderedDict[str, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._written: set[str] = set()
        self.shown = Shown(self._has)
        """Which frames were asked for before, and are still here."""

    def put(self, video_id: str, frame: DecodedFrame) -> Frame:
        """Keep a frame; returns the reference to it.

        Raises:
            ValueError: the pixels are not (H, W, 3) uint8.
        """
        pixels = frame.pixels
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError(f"a frame is (H, W, 3) uint8; got {pixels.shape} {pixels.dtype}")
        sha256 = pixels_sha256(pixels)
        self._hold(sha256, pixels)
        if self._root is not None:
            self._write(sha256, pixels)
        height, width, _ = pixels.shape
        return Frame(video_id=video_id, timestamp_s=frame.timestamp_s, sha256=sha256, width=width, height=height)

    def pixels(self, frame: Frame) -> np.ndarray:
        """(H, W, 3) uint8, read-only.

        Raises:
            UnknownFrame: never stored here, dropped from memory, or damaged on disk.
        """
        with self._lock:
            found = self._held.get(frame.sha256)
            if found is not None:
                self._held.move_to_end(frame.sha256)
                return found
        loaded = _read_png(self._file(frame.sha256)) if self._root is not None else None
        if loaded is None or pixels_sha256(loaded) != frame.sha256:
            where = (
                f"in {self._root}" if self._root is not None else "in memory (give the store a directory to keep more)"
            )
            raise UnknownFrame(
                f"frame {frame.sha256[:12]} at {frame.timestamp_s:.1f} s of video {frame.video_id[:12]} is not {where}"
            )
        return self._hold(frame.sha256, loaded)

    def __contains__(self, frame: Frame) -> bool:
        """Whether the frame is in memory or has a file; the file is not read."""
        with self._lock:
            if frame.sha256 in self._held:
                return True
        return self._root is not None and self._file(frame.sha256).is_file()

    def _has(self, frame: Frame) -> bool:
        """Whether `pixels` will give the frame, and others will find its file; it counts as used."""
        if self._root is not None:
            return frame.sha256 in self._written and self._file(frame.sha256).is_file()
        with self._lock:
            if frame.sha256 not in self._held:
                return False
            self._held.move_to_end(frame.sha256)
            return True

    def _hold(self, sha256: str, pixels: np.ndarray) -> np.ndarray:
        kept = np.array(pixels, order="C")
        kept.flags.writeable = False
        with self._lock:
            if sha256 not in self._held:
                self._held[sha256] = kept
                self._bytes += kept.nbytes
            self._held.move_to_end(sha256)
            while self._bytes > self._limit and len(self._held) > 1:
                _, dropped = self._held.popitem(last=False)
                self._bytes -= dropped.nbytes
            return self._held[sha256]

    def _write(self, sha256: str, pixels: np.ndarray) -> None:
        path = self._file(sha256)
        if path.exists() and sha256 in self._written:
            return
        found = _read_png(path)
        if found is None or pixels_sha256(found) != sha256:
            _write_png(path, pixels)
        self._written.add(sha256)

    def _file(self, sha256: str) -> Path:
        assert self._root is not None
        return self._root / sha256[:2] / f"{sha256}.png"


def _write_png(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    Image.fromarray(pixels).save(beside, format="PNG", compress_level=1)
    beside.replace(path)


def _read_png(path: Path) -> np.ndarray | None:
    """None when the file is missing or is no image."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return None

"""Store: arrays on disk that are either sound or absent.

One file per thing, `<root>/<key>.npz`: plain arrays (never pickled) beside a JSON header that holds the key it was
written for and a SHA-256 of the arrays. Loading checks all of it; whatever does not fit is reported in one line and
counts as absent, so that the caller makes it anew. Writing goes to a file of a unique name beside, then renames: a
reader never sees half a file, and of two processes that write the same key the last one wins with the same content.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

import numpy as np

FORMAT = 1
Arrays = dict[str, np.ndarray]
Report = Callable[[str], None]


class ArrayStore:
    """Named groups of arrays in a folder, or nowhere at all when `root` is None.

    Keys are file names without the suffix: letters, digits, dots and dashes.
    """

    def __init__(self, root: Path | None, report: Report):
        self.root, self._report = root, report

    def path(self, key: str) -> Path | None:
        return None if self.root is None else self.root / f"{key}.npz"

    def save(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write `arrays` under `key`. A disk that is full or read-only is reported, not raised: the arrays are still
        in memory, and only the saving is lost."""
        path = self.path(key)
        if path is None:
            return
        beside = path.with_name(f".{path.name}.{os.getpid()}.{uuid4().hex[:8]}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            header = json.dumps({"format": FORMAT, "key": key, "sha256": _checksum(arrays)})
            with beside.open("wb") as out:
                np.savez(out, allow_pickle=False, **{"header": np.frombuffer(header.encode(), np.uint8), **arrays})
            beside.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            self._report(f"{path}: cannot be saved ({error.strerror or error}); going on without")

    def load(self, key: str) -> Arrays | None:
        """The arrays under `key`, or None when there are none that are sound."""
        path = self.path(key)
        if path is None or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as data:
                arrays = {name: data[name] for name in data.files}
            header = json.loads(arrays.pop("header").tobytes())
        except FileNotFoundError:  # another process finished the same build, and dropped its pieces
            return None
        except Exception as error:  # zip, numpy, JSON and the file system each fail in their own way
            self._report(f"{path}: damaged ({type(error).__name__}), making it anew")
            return None
        fault = _fault(header, key, arrays)
        if fault:
            self._report(f"{path}: {fault}, making it anew")
            return None
        return arrays

    def drop(self, key: str) -> None:
        """Remove what lies under `key`, if anything."""
        path = self.path(key)
        if path is not None:
            path.unlink(missing_ok=True)


def _fault(header: object, key: str, arrays: Arrays) -> str | None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        return "of another format"
    if header.get("key") != key:
        return f"made for something else ({header.get('key')!r:.80})"
    return None if header.get("sha256") == _checksum(arrays) else "damaged (wrong checksum)"


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

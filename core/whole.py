"""Files that are there whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> Path:
    """Write a UTF-8 text file; what cannot be written leaves what was there before."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def write_json(path: Path, value: Any) -> Path:
    """Plain JSON values, indented, in ASCII: what models write is not always valid Unicode."""
    return write_whole(path, json.dumps(value, indent=2) + "\n")

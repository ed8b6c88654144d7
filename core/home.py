"""Where playhead keeps what it can make again: indexes, frames, captions."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """`$PLAYHEAD_HOME`, or `~/.cache/playhead`. Not created here: whoever writes creates what it needs."""
    home = os.environ.get("PLAYHEAD_HOME")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "playhead"

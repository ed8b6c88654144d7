"""Profile: how a checkpoint wants to be asked. Lies beside its weights as `playhead.json`, so a model trained here carries
the habits it was trained with; a checkpoint without one (any Qwen3-VL) gets the defaults and the system prompt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from ..core.budget import Budget
from ..core.codec import from_plain, to_plain
from ..core.errors import DataError, ModelError
from ..core.whole import write_json
from .prompts import SYSTEM_PROMPT

PROFILE_FILE = "playhead.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Defaults of an agent around one model. Everything here can be overridden at `VideoAgent`."""

    skim_frames: int = 8
    """Uniform frames shown before the first thought."""
    max_side: int = 448
    """Frames are decoded at most this many pixels on their longer side."""
    turn_tokens: int = 512
    """The most tokens one turn may take."""
    system: str = SYSTEM_PROMPT
    """What stands before the first question; nothing when empty."""
    notice: str = ""
    """What users should know of this model, in a sentence."""
    budget: Budget = field(default_factory=Budget)
    tools: tuple[str, ...] | None = None
    """The tools that the model was trained to use, in the order in which it is told of them; None for all that are of use with
    a video."""


def load_profile(folder: Path) -> Profile:
    """The profile of a checkpoint folder, or the defaults.

    Raises:
        ModelError: the file is there but damaged.
    """
    path = folder / PROFILE_FILE
    if not path.is_file():
        return Profile()
    try:
        return from_plain(Profile, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (json.JSONDecodeError, UnicodeDecodeError, DataError) as error:
        raise ModelError(f"{path}: damaged profile ({error})") from None


def save_profile(profile: Profile, folder: Path) -> None:
    """Write the profile into a checkpoint folder (beside, then renamed)."""
    path = folder / PROFILE_FILE
    write_json(path, to_plain(profile))

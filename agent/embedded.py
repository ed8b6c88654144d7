"""The embedded model: where it lies, and how it is asked. It knows only the world of `world/`."""

from __future__ import annotations

from pathlib import Path

from .profile import Profile

EMBEDDED = "embedded"


def checkpoint_dir() -> Path:
    """The folder of the checkpoint that ships with the package; an ordinary transformers checkpoint."""
    return Path(__file__).resolve().parent.parent / "models" / "embedded" / "vlm"


EMBEDDED_PROFILE = Profile(
    skim_frames=4,
    max_side=192,
    turn_tokens=768,
    system="",
    notice=(
        "The embedded model knows only the made-up world of `playhead world make` (coloured shapes and digits): "
        "on any other footage its answers mean nothing. Use --model there, with a Qwen3-VL, Qwen2.5-VL or SmolVLM2 "
        "checkpoint or the address of an OpenAI-compatible server."
    ),
    tools=("search_clips", "temporal_zoom", "caption_frames", "search_subtitles", "crop_frame"),
)

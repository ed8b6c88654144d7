"""Qwen2.5-VL conversations as tokens.

Qwen2.5-VL reads time in a video from its temporal rotary positions (arXiv 2502.13923, "Multimodal Rotary Position Embedding
Aligned to Absolute Time"), which say how far frames of one video are apart but not when the first one is, and need evenly
spaced frames. An agent's frames come one by one, from anywhere: they are images, with the time as text, in seconds (one of the
forms in which its video data has times, same report, on its pre-training data), directly before the image:
`12.0s<|vision_start|>...`. Its positions are then those of images, as `get_rope_index` gives them.

Its published template knows neither tools nor tool results; see `preamble.py`.
"""

from __future__ import annotations

from .qwen3vl import Qwen3VLRenderer


class Qwen25VLRenderer(Qwen3VLRenderer):
    """The `Renderer` of Qwen2.5-VL checkpoints, with a `Qwen2_5_VLProcessor`."""

    default_system = "You are a helpful assistant."

    def stamp(self, t_s: float) -> str:
        return f"{t_s:.1f}s"

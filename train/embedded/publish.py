"""Publishing the embedded model: half-precision weights, processor and profile, as an ordinary checkpoint folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...agent.embedded import EMBEDDED_PROFILE, checkpoint_dir
from ...agent.profile import Profile, save_profile
from ...agent.renderers.qwen3vl import Qwen3VLRenderer

LIMIT_BYTES = 40 << 20


def publish(
    checkpoint: Path, openclip: Path, out: Path | None = None, profile: Profile = EMBEDDED_PROFILE
) -> Path:
    """Write `vlm/` and `openclip/` into `out` (the package's own folder by default).

    Raises:
        ValueError: the two are larger together than what may ship.
    """
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    out = out or checkpoint_dir().parent
    vlm = out / "vlm"
    # fp16, not bf16: the weights are small numbers, and three more bits of mantissa keep the answers the same.
    model = Qwen3VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float16)
    model.save_pretrained(vlm)
    Qwen3VLRenderer.from_checkpoint(checkpoint).processor.save_pretrained(vlm)
    save_profile(profile, vlm)
    (out / "openclip").mkdir(exist_ok=True)
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        if (openclip / name).resolve() != (out / "openclip" / name).resolve():
            shutil.copy2(openclip / name, out / "openclip" / name)
    size = sum(f.stat().st_size for folder in (vlm, out / "openclip") for f in folder.iterdir())
    if size > LIMIT_BYTES:
        raise ValueError(f"{out}: {size >> 20} MiB of weights, more than the {LIMIT_BYTES >> 20} that may ship")
    return out

"""Real small things to remember: films, an encoder that needs no training, an untrained OpenCLIP model."""

import json
from pathlib import Path

import pytest
from colour_films import colour_encoder, film

__all__ = ["colour_encoder", "film"]


@pytest.fixture(scope="session")
def openclip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OpenCLIP model as open_clip saves it, weights random."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("openclip")
    config = {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 192, "layers": 4, "head_width": 64},
            "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
        },
        "preprocess_cfg": {
            "mean": [0.45, 0.46, 0.47],
            "std": [0.25, 0.26, 0.27],
            "resize_mode": "squash",
            "interpolation": "bicubic",
        },
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**json.loads(json.dumps(config["model_cfg"])))
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder

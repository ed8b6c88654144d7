"""Real small things to remember: films, an encoder that needs no training, an untrained OpenCLIP model."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "grey": (120, 120, 120)}


class ColourEncoder:
    """An encoder without weights: the vector of an image is its mean colour, of a text the colour it names."""

    name, fingerprint, dim, image_size = "colour", "colour-1", 4, 16

    def __init__(self) -> None:
        self.encoded = 0

    def encode_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        self.encoded += len(images)
        return _unit(np.array([[*image.reshape(-1, 3).mean(axis=0), 255] for image in images]))

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        named = [next((rgb for name, rgb in COLOURS.items() if name in text), (0, 0, 0)) for text in texts]
        return _unit(np.array([[*rgb, 255] for rgb in named]))


def _unit(rows: np.ndarray) -> np.ndarray:
    centred = rows.astype(np.float32) - np.array([100, 100, 100, 100], np.float32)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


@pytest.fixture
def colour_encoder() -> ColourEncoder:
    return ColourEncoder()


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`film([("grey", 20), ("red", 4), ...], fps=4)`: plain colours for so many seconds each, as an H.264 MP4."""

    def write(stretches: Sequence[tuple[str, float]], fps: int = 4, size: tuple[int, int] = (64, 48)) -> Path:
        import av

        path = tmp_path_factory.mktemp("film") / "film.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for colour, seconds in stretches:
                pixels = np.full((size[1], size[0], 3), COLOURS[colour], np.uint8)
                for _ in range(round(seconds * fps)):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
        return path

    return write


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

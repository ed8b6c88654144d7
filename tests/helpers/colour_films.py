"""Films of plain colours, as real H.264 files, and an encoder that needs no training to find a colour in them."""

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


def write_film(path: Path, stretches: Sequence[tuple[str, float]], fps: int = 4, size: tuple[int, int] = (64, 48)) -> Path:
    """Each colour for so many seconds, as an H.264 MP4."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for colour, seconds in stretches:
            pixels = np.full((size[1], size[0], 3), COLOURS[colour], np.uint8)
            for _ in range(round(seconds * fps)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`film([("grey", 20), ("red", 4), ...], fps=4)`: a new file of `write_film`."""
    return lambda *args, **how: write_film(tmp_path_factory.mktemp("film") / "film.mp4", *args, **how)


@pytest.fixture(scope="session")
def red_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 s of grey, 4 s of red (30-34), 26 s of grey, of 64x64 at 4 fps."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_film(path, [("grey", 30), ("red", 4), ("grey", 26)], size=(64, 64))

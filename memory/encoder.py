"""Encoder: images and sentences to unit vectors in one space (CLIP), so that a search is an inner product.

Any OpenCLIP model does: the embedded one that comes with the package, a built-in name with local weights, or a model
folder. Nothing here downloads unless the caller names a hub model himself. The only module that knows `open_clip`.

    load_encoder("embedded")                              models/embedded/openclip in the package
    load_encoder("local-dir:/path/to/folder")             open_clip_config.json and weights, as open_clip saves them
    load_encoder("ViT-B-32:/path/to/weights.safetensors")  a built-in architecture with weights of one's own
    load_encoder("hf-hub:org/name")                       from the hub's cache, or downloaded by open_clip

An encoder's `fingerprint` names its weights and its preprocessing: indexes made by another one are never mistaken.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..core.errors import ModelError

if TYPE_CHECKING:
    import torch

EMBEDDED_DIR = Path(__file__).resolve().parent.parent / "models" / "embedded" / "openclip"
CONFIG_FILE = "open_clip_config.json"
BATCH = 32
"""Images per forward pass: large enough to fill a core, small enough to stay in memory with any model."""


class Encoder(Protocol):
    """Images and texts to vectors of one space. Vectors are float32 with unit norm."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Changes when the weights or the preprocessing change."""
        ...

    @property
    def dim(self) -> int: ...

    @property
    def image_size(self) -> int:
        """Side in pixels that images are resized to: finer ones are wasted on it."""
        ...

    def encode_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """N images (H, W, 3) uint8 RGB -> (N, dim) float32."""
        ...

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """N texts -> (N, dim) float32."""
        ...


def preprocess(images: Sequence[np.ndarray], size: int, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Images to what the embedded vision tower takes; also the preprocessing it is trained with.

    Squash to (size, size) with antialiased bicubic interpolation on uint8, scale to [0, 1], subtract `mean`, divide by
    `std` (per channel, R G B). The same as `resize_mode: squash` of OpenCLIP, up to rounding.

    Args:
        images: N arrays (H, W, 3) uint8 RGB, sizes may differ.

    Returns:
        (N, 3, size, size) float32.
    """
    import torch
    import torch.nn.functional as F

    small = torch.empty((len(images), 3, size, size), dtype=torch.uint8)
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(image.shape, []).append(i)
    for shape, members in groups.items():
        batch = torch.from_numpy(np.stack([images[i] for i in members])).permute(0, 3, 1, 2)
        if shape[:2] != (size, size):
            batch = F.interpolate(batch, (size, size), mode="bicubic", antialias=True, align_corners=False)
        small[members] = batch
    scale = torch.tensor([1 / (255 * s) for s in std]).view(1, 3, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(1, 3, 1, 1)
    return small.float() * scale + shift


class OpenClipEncoder:
    """An OpenCLIP model in evaluation mode (float32), behind the `Encoder` protocol."""

    def __init__(self, name: str, fingerprint: str, model: Any, transform: Any, tokenizer: Any, *, device: str = "cpu"):
        self.name, self.fingerprint = name, fingerprint
        self._model, self._transform, self._tokenizer, self._device = model, transform, tokenizer, device
        cfg = model.visual.preprocess_cfg
        size = cfg["size"]
        self.image_size: int = size if isinstance(size, int) else max(size)
        # A squashing model takes the fast path (and exactly what the embedded one is trained with); others keep
        # OpenCLIP's own transform, with its crop.
        self._squash = cfg.get("resize_mode") == "squash" and cfg.get("interpolation", "bicubic") == "bicubic"
        self._mean, self._std = cfg["mean"], cfg["std"]
        self.dim: int = int(self.encode_text(["a"]).shape[1])

    def encode_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        import torch

        rows = [np.empty((0, getattr(self, "dim", 0)), dtype=np.float32)] if not images else []
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                pixels = self._pixels(images[start : start + BATCH]).to(self._device)
                rows.append(self._model.encode_image(pixels, normalize=True).float().cpu().numpy())
        return np.concatenate(rows)

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        with torch.inference_mode():
            tokens = self._tokenizer(list(texts)).to(self._device)
            return self._model.encode_text(tokens, normalize=True).float().cpu().numpy()

    def _pixels(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        import torch
        from PIL import Image

        if self._squash:
            return preprocess(images, self.image_size, self._mean, self._std)
        return torch.stack([self._transform(Image.fromarray(image)) for image in images])


def load_encoder(spec: str = "embedded", *, device: str = "cpu") -> OpenClipEncoder:
    """Load an OpenCLIP model; the forms of `spec` stand in the module's docstring.

    Weights of the `.pt` kind are read as tensors only, never as pickled code.

    Raises:
        ModelError: no such model or file, or weights that do not fit the architecture.
    """
    import open_clip

    name, pretrained, files = _resolve(spec)
    try:
        model, _, transform = open_clip.create_model_and_transforms(
            name, pretrained=pretrained, device=device, weights_only=True, require_pretrained=True
        )
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip raises bare RuntimeErrors, torch and safetensors their own kinds
        raise ModelError(f"encoder {spec}: {_first_line(error)}") from error
    model.eval()
    return OpenClipEncoder(spec, _fingerprint(model, files), model, transform, tokenizer, device=device)


def _resolve(spec: str) -> tuple[str, str | None, list[Path]]:
    """(name for open_clip, weights file or None, the files that make up the model)."""
    if spec == "embedded":
        spec = f"local-dir:{EMBEDDED_DIR}"
    if spec.startswith("local-dir:"):
        folder = Path(spec.removeprefix("local-dir:"))
        if not (folder / CONFIG_FILE).is_file():
            raise ModelError(f"encoder {folder}: no {CONFIG_FILE} there; it should be a folder as open_clip saves it")
        weights = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pt", ".pth"))
        if not weights:
            raise ModelError(f"encoder {folder}: no weights there (open_clip_model.safetensors)")
        return spec, None, [folder / CONFIG_FILE, *weights]
    if spec.startswith("hf-hub:"):
        return spec, None, []
    name, _, file = spec.partition(":")
    if not file:
        raise ModelError(
            f"encoder {spec!r}: give weights as NAME:/path/to/weights.safetensors, or 'embedded', local-dir:FOLDER, "
            "hf-hub:ORG/NAME"
        )
    if not Path(file).is_file():
        raise ModelError(f"encoder {name}: no such file of weights: {file}")
    return name, file, [Path(file)]


def _fingerprint(model: Any, files: list[Path]) -> str:
    """Hash of the model's files and preprocessing; of the weights in memory where the files are not ours to know."""
    digest = hashlib.sha256(json.dumps(model.visual.preprocess_cfg, sort_keys=True, default=str).encode())
    if files:
        for file in files:
            with file.open("rb") as data:
                digest.update(hashlib.file_digest(data, "sha256").digest())
    else:
        for key, tensor in sorted(model.state_dict().items()):
            digest.update(key.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _first_line(error: Exception) -> str:
    # open_clip ends some of its messages with the names of all 150 models.
    said = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {said[0][:160]}"

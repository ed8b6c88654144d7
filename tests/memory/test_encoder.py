"""The encoder: unit vectors, a stable fingerprint, the preprocessing that the embedded model is trained with."""

from pathlib import Path

import numpy as np
import pytest
from playhead.core.errors import ModelError
from playhead.memory.encoder import EMBEDDED_DIR, load_encoder, preprocess

RNG = np.random.default_rng(0)


def image(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_preprocess_is_scale_then_normalise():
    grey = np.full((64, 64, 3), 51, np.uint8)
    out = preprocess([grey], 64, (0.1, 0.2, 0.3), (0.5, 0.25, 0.1))
    assert out.shape == (1, 3, 64, 64)
    assert np.allclose(out[0, :, 0, 0], [(0.2 - 0.1) / 0.5, 0.0, (0.2 - 0.3) / 0.1], atol=1e-6)


def test_preprocess_takes_mixed_sizes_and_keeps_the_order():
    images = [image(192, 192), image(64, 64), image(90, 160), image(192, 192)]
    together = preprocess(images, 64, (0.5,) * 3, (0.5,) * 3)
    for i, one in enumerate(images):
        assert np.array_equal(together[i], preprocess([one], 64, (0.5,) * 3, (0.5,) * 3)[0])


def test_preprocess_is_what_openclip_calls_squash():
    from open_clip.transform import image_transform
    from PIL import Image

    theirs = image_transform(
        64, is_train=False, mean=(0.5,) * 3, std=(0.5,) * 3, resize_mode="squash", interpolation="bicubic"
    )
    photo = image(120, 200)
    ours = preprocess([photo], 64, (0.5,) * 3, (0.5,) * 3)[0]
    assert np.abs(ours.numpy() - theirs(Image.fromarray(photo)).numpy()).max() <= 2.1 / 127.5


def test_folder_gives_unit_vectors(openclip_folder: Path):
    encoder = load_encoder(f"local-dir:{openclip_folder}")
    assert (encoder.dim, encoder.image_size) == (128, 64)
    images = encoder.encode_images([image(48, 64) for _ in range(3)])
    texts = encoder.encode_text(["a red star", "nothing", "x " * 500])
    for rows in (images, texts):
        assert rows.shape == (3, 128) and rows.dtype == np.float32
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-4)
    assert encoder.encode_images([]).shape == encoder.encode_text([]).shape == (0, 128)


def test_fingerprint_follows_the_weights_not_the_place(openclip_folder: Path, tmp_path: Path):
    import shutil

    moved, changed = tmp_path / "moved", tmp_path / "changed"
    shutil.copytree(openclip_folder, moved)
    shutil.copytree(openclip_folder, changed)
    weights = changed / "open_clip_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    first, second, third = (load_encoder(f"local-dir:{p}").fingerprint for p in (openclip_folder, moved, changed))
    assert first == second != third


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("local-dir:/nowhere", "open_clip_config.json"),
        ("ViT-B-32:/nowhere/weights.pt", "no such file"),
        ("ViT-B-32", "give weights as"),
        ("", "give weights as"),
    ],
)
def test_what_is_missing_is_said_in_one_line(spec: str, says: str):
    with pytest.raises(ModelError, match=says) as caught:
        load_encoder(spec)
    assert "\n" not in str(caught.value)


def test_pickled_code_in_weights_is_refused(tmp_path: Path):
    import os
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError):
        load_encoder(f"RN50:{tmp_path / 'evil.pt'}")
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(
    not (EMBEDDED_DIR / "open_clip_config.json").is_file(), reason="the embedded model is not trained yet"
)
def test_embedded_model_loads():
    encoder = load_encoder("embedded")
    assert np.allclose(np.linalg.norm(encoder.encode_text(["red star", "blue ring"]), axis=1), 1, atol=1e-4)

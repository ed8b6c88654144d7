"""Drawing a scene: one frame as pixels, a pure function of the scene and the time.

The background is a slowly drifting field of desaturated gradients and blobs, sometimes with faint grey bars; it cuts to
another look about once a minute, so that a film has shots. The object is drawn over it in a saturated hue with a thin
dark outline; a digit stands white on a black plate at the object's centre, large enough to be read when the frame is
shrunk to 64 pixels. Every part of the background is a sum of products of a row and a column profile, so that a frame is
one small matrix product; sprites are drawn from signed distances and kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .scene import Event, Scene

HUES: dict[str, tuple[int, int, int]] = {
    "red": (226, 32, 36),
    "yellow": (246, 216, 36),
    "green": (36, 172, 56),
    "cyan": (36, 206, 222),
    "blue": (44, 72, 232),
    "pink": (246, 96, 196),
}
OUTLINE = (18, 18, 22)
SHOT_S = 60.0
"""Mean length of a shot; cuts move up to a quarter of it either way."""
WAVES = 4
BLOBS = 3
NOISE_FIELDS = 4
SMALL_DOTS = 192
"""A dot of a small digit is one of so many of the frame's width."""
SMALL_SIDE = 12
"""Width of the square that holds a small digit's plate, in dots."""
SMALL_GREY, SMALL_CONTRAST, VANISHING = 124.0, 200.0, 0.65
"""Grey levels of a small digit, and the width in dots of the blur that is taken from it: strokes with a bright core and edges
as dark as it is bright. Such letters vanish where they cannot be resolved (B. Howland, A. Ginsburg, F. Campbell 1978,
"High-pass spatial frequency letters as clinical optotypes"). Of white on black, averages over a few pixels would still tell."""
FILL = 0.48
"""Half the drawn width of an object as a share of its size, so that a size of 0.5 at the edge stays in the frame."""

GLYPHS = (
    "01110 10001 10011 10101 11001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00110 01000 10000 11111",
    "11111 00010 00100 00010 00001 10001 01110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
)
"""The digits in a 5 by 7 dot-matrix font, row by row."""


def render(scene: Scene, t_s: float, size: int | None = None) -> np.ndarray:
    """The frame of `scene` at `t_s` as a (size, size, 3) uint8 RGB array; `size` defaults to the scene's own."""
    size = size or scene.size
    frame = _background(scene, t_s, size)
    event = scene.event_at(t_s)
    if event is None:
        return frame
    behind = frame.copy() if scene.haze else frame
    _draw(frame, event, t_s)
    if event.small_digit is not None:
        _draw_small(frame, event, t_s)
    return _faded(frame, behind, scene.haze) if scene.haze else frame


# ---- background


@dataclass(frozen=True, slots=True)
class _Look:
    """What a shot's background is made of; angles in radians, speeds in radians or frames per second."""

    base: np.ndarray  # (3,)
    wave_xy: np.ndarray  # (WAVES, 2)
    wave_phase: np.ndarray
    wave_speed: np.ndarray
    wave_rgb: np.ndarray  # (WAVES, 3)
    blob_radius: np.ndarray
    blob_phase: np.ndarray  # (BLOBS, 2)
    blob_speed: np.ndarray
    blob_rgb: np.ndarray  # (BLOBS, 3)
    bars: tuple[int, float, float, float, float] | None
    """Axis, bars per frame, phase, speed, strength."""


def _muted(rng: np.random.Generator, count: int, light: float, tint: float) -> np.ndarray:
    """Colour offsets that are mostly light or dark, with a little tint."""
    return (rng.uniform(-light, light, (count, 1)) + rng.uniform(-tint, tint, (count, 3))).astype(np.float32)


@lru_cache(maxsize=256)
def _look(seed: int, shot: int) -> _Look:
    rng = np.random.default_rng([seed, shot])
    bars = None
    if rng.random() < 0.35:
        bars = (
            int(rng.integers(2)),
            rng.uniform(3, 7),
            rng.uniform(0, 6.28),
            rng.uniform(-0.6, 0.6),
            rng.uniform(6, 12),
        )
    return _Look(
        base=(rng.uniform(85, 165) + rng.uniform(-16, 16, 3)).astype(np.float32),
        wave_xy=rng.uniform(-5.0, 5.0, (WAVES, 2)),
        wave_phase=rng.uniform(0, 6.28, WAVES),
        wave_speed=rng.uniform(-0.25, 0.25, WAVES),
        wave_rgb=_muted(rng, WAVES, 9, 9),
        blob_radius=rng.uniform(0.12, 0.3, BLOBS),
        blob_phase=rng.uniform(0, 6.28, (BLOBS, 2)),
        blob_speed=rng.uniform(-0.2, 0.2, (BLOBS, 2)),
        blob_rgb=_muted(rng, BLOBS, 28, 18),
        bars=bars,
    )


@lru_cache(maxsize=4096)
def _cut(seed: int, shot: int) -> float:
    """When shot number `shot` of a scene begins."""
    if shot <= 0:
        return 0.0
    return SHOT_S * (shot + float(np.random.default_rng([seed, shot, 1]).uniform(-0.25, 0.25)))


def shot_at(seed: int, t_s: float) -> int:
    """The number of the shot on screen at `t_s`."""
    shot = int(t_s / SHOT_S)
    if t_s >= _cut(seed, shot + 1):
        return shot + 1
    return max(0, shot - 1) if t_s < _cut(seed, shot) else shot


@lru_cache(maxsize=8)
def _noise(seed: int, size: int) -> np.ndarray:
    """Faint grain, the same for a whole scene: (NOISE_FIELDS, size, size, 1) float32."""
    rng = np.random.default_rng([seed, 2])
    return rng.uniform(-3.0, 3.0, (NOISE_FIELDS, size, size, 1)).astype(np.float32)


def _background(scene: Scene, t_s: float, size: int) -> np.ndarray:
    shot = shot_at(scene.seed, t_s)
    look = _look(scene.seed, shot)
    u = (np.arange(size) + 0.5) / size
    # sin(x + y) = sin x cos y + cos x sin y: two products for a wave.
    x = look.wave_xy[:, :1] * u + (look.wave_phase + look.wave_speed * t_s)[:, None]
    y = look.wave_xy[:, 1:] * u
    centre = 0.5 + 0.4 * np.sin(look.blob_phase + look.blob_speed * t_s)
    blob_x = np.exp(-(((u - centre[:, :1]) / look.blob_radius[:, None]) ** 2))
    blob_y = np.exp(-(((u - centre[:, 1:]) / look.blob_radius[:, None]) ** 2))
    columns, rows = [np.sin(x), np.cos(x), blob_x], [np.cos(y), np.sin(y), blob_y]
    rgb = [look.wave_rgb, look.wave_rgb, look.blob_rgb]
    columns.append(np.ones((1, size)))
    rows.append(np.ones((1, size)))
    rgb.append(look.base[None])
    if look.bars is not None:
        axis, count, phase, speed, strength = look.bars
        profile = strength * np.tanh(3 * np.sin(6.283 * count * u + phase + speed * t_s))[None]
        columns.append(profile if axis else np.ones((1, size)))
        rows.append(np.ones((1, size)) if axis else profile)
        rgb.append(np.ones((1, 3)))
    down = np.concatenate(rows).astype(np.float32)
    across = np.concatenate(columns)[:, :, None] * np.concatenate(rgb)[:, None, :]
    field = (down.T @ across.reshape(len(across), -1).astype(np.float32)).reshape(size, size, 3)
    field += _noise(scene.seed, size)[round(t_s * scene.fps) % NOISE_FIELDS]
    return np.clip(field, 0, 255, out=field).astype(np.uint8)


# ---- object


def _faded(frame: np.ndarray, behind: np.ndarray, haze: float) -> np.ndarray:
    """`frame` with a share of `haze` of what lies behind the object."""
    return np.rint((1 - haze) * frame + haze * behind).astype(np.uint8)


def _draw(frame: np.ndarray, event: Event, t_s: float) -> None:
    size = len(frame)
    colour, alpha = _sprite(event.shape, event.colour, event.digit, max(8, round(event.size * size)), size)
    side = len(alpha)
    x, y = event.position(t_s)
    left, top = round(x * size - side / 2), round(y * size - side / 2)
    x0, y0, x1, y1 = max(0, left), max(0, top), min(size, left + side), min(size, top + side)
    cut = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    under = frame[y0:y1, x0:x1].astype(np.uint16)
    under = under * (255 - alpha[cut]) + colour[cut]
    frame[y0:y1, x0:x1] = (under // 255).astype(np.uint8)


def _draw_small(frame: np.ndarray, event: Event, t_s: float) -> None:
    """The plate of a small digit at the object's centre; nothing where a dot would be less than a pixel."""
    size = len(frame)
    cell = size // SMALL_DOTS
    if cell < 1 or event.small_digit is None:
        return
    side = SMALL_SIDE * cell
    plate, ink = _digit(event.small_digit, round(15.5 * cell), side)
    x, y = event.position(t_s)
    left, top = round(x * size - side / 2), round(y * size - side / 2)
    under = frame[top : top + side, left : left + side].astype(np.float64)
    drawn = under * (1 - plate) + plate * (SMALL_GREY + SMALL_CONTRAST * _vanishing(ink, VANISHING * cell))
    frame[top : top + side, left : left + side] = np.rint(drawn).astype(np.uint8)


def _vanishing(ink: np.ndarray, sigma: float) -> np.ndarray:
    """What a Gaussian blur takes from `ink` (side, side, 1), twice over: fine detail, with a mean of 0 over anything larger."""
    reach = np.arange(len(ink))
    blur = np.exp(-((reach[:, None] - reach) ** 2) / (2 * sigma**2))
    blur /= blur[len(ink) // 2].sum()
    fine = ink[..., 0]
    for _ in range(2):
        fine = fine - blur @ fine @ blur
    return fine[..., None]


@lru_cache(maxsize=1024)
def _sprite(shape: str, colour: str, digit: int | None, width: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Premultiplied colour (side, side, 3) uint16 and opacity (side, side, 1) uint16 of 0 to 255."""
    distance = _distance(shape, width)
    line = max(0.7, size / 80)
    alpha = np.clip(0.5 - distance, 0, 1)[..., None]
    fill = np.clip(0.5 - line - distance, 0, 1)[..., None]
    rgb = fill * np.array(HUES[colour]) + (1 - fill) * np.array(OUTLINE)
    if digit is not None:
        plate, ink = _digit(digit, width, len(distance))
        alpha = np.maximum(alpha, plate)
        rgb = rgb * (1 - plate) + plate * (ink * 250.0 + (1 - ink) * 8.0)
    alpha = np.rint(alpha * 255)
    return np.rint(rgb * alpha).astype(np.uint16), alpha.astype(np.uint16)


@lru_cache(maxsize=256)
def _distance(shape: str, width: int) -> np.ndarray:
    """Signed distance to the shape's edge in pixels, negative inside: (width + 2, width + 2)."""
    side = width + 2
    axis = np.arange(side) + 0.5 - side / 2
    x, y = np.meshgrid(axis, axis)
    radius = FILL * width
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "ring":
        inner = 0.64 * radius
        return np.abs(np.hypot(x, y) - (radius + inner) / 2) - (radius - inner) / 2
    return _polygon_distance(x, y, np.array(_corners(shape)) * radius)


def _corners(shape: str) -> list[tuple[float, float]]:
    if shape == "square":
        return [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]
    if shape == "triangle":
        return [(0.0, -1.0), (1.0, 0.86), (-1.0, 0.86)]
    if shape == "cross":
        a, b = 1.0, 0.36
        return [
            (-b, -a),
            (b, -a),
            (b, -b),
            (a, -b),
            (a, b),
            (b, b),
            (b, a),
            (-b, a),
            (-b, b),
            (-a, b),
            (-a, -b),
            (-b, -b),
        ]
    if shape == "star":
        turns = np.arange(10) * np.pi / 5
        radii = np.where(np.arange(10) % 2 == 0, 1.04, 0.5)
        return [(r * np.sin(a), -r * np.cos(a) + 0.05) for r, a in zip(radii, turns, strict=True)]
    raise ValueError(f"no such shape {shape!r}")


def _polygon_distance(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    nearest = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, 0), strict=True):
        dx, dy = bx - ax, by - ay
        share = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - ax - share * dx, y - ay - share * dy))
        if dy != 0:
            inside ^= ((ay > y) != (by > y)) & (x < ax + dx * (y - ay) / dy)
    return np.where(inside, -nearest, nearest)


@lru_cache(maxsize=256)
def _digit(digit: int, width: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Plate and ink of a digit at the sprite's centre, each (side, side, 1) in 0 to 1."""
    cell = max(1, round(width / 15.5))
    dots = np.array([[float(dot) for dot in row] for row in GLYPHS[digit].split()])
    glyph = np.kron(dots, np.ones((cell, cell)))
    ink = np.zeros((side, side))
    top, left = (side - glyph.shape[0]) // 2, (side - glyph.shape[1]) // 2
    ink[top : top + glyph.shape[0], left : left + glyph.shape[1]] = glyph
    axis = np.arange(side) + 0.5
    margin = 0.75 * cell
    # A rounded box around the glyph: distance to it, as for the shapes.
    across = np.abs(axis - left - glyph.shape[1] / 2) - glyph.shape[1] / 2
    down = np.abs(axis - top - glyph.shape[0] / 2) - glyph.shape[0] / 2
    away = np.hypot(np.maximum(across, 0)[None], np.maximum(down, 0)[:, None])
    plate = np.clip(margin + 0.5 - away, 0, 1)
    return plate[..., None], ink[..., None]

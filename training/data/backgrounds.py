"""What every synthetic picture has, whatever is on it: a size, a background (plain, noisy, graded or photographic), and
what a camera adds.

The `held_out` split uses parts of the photographs that training never sees.
"""

import colorsys
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

PHOTOS = (
    "astronaut.png",
    "coffee.png",
    "chelsea.png",
    "rocket.jpg",
    "camera.png",
    "brick.png",
    "grass.png",
    "gravel.png",
    "moon.png",
    "hubble_deep_field.jpg",
)
HELD_OUT_FROM = 0.68  # share of a photograph's width from which its columns are held out


def picture_size(rng: np.random.Generator, longest: int) -> tuple[int, int]:
    long_side = math.exp(rng.uniform(math.log(220), math.log(longest)))
    ratio = 1.0 if rng.random() < 0.25 else math.exp(rng.uniform(0, math.log(2)))
    short_side = max(200, round(long_side / ratio))
    long_side = max(round(long_side), short_side)
    return (long_side, short_side) if rng.random() < 0.6 else (short_side, long_side)


def background_of(rng: np.random.Generator, width: int, height: int, held_out: bool) -> tuple[str, np.ndarray]:
    """A name and an (H, W, 3) float32 array of 0 to 255."""
    kind = str(rng.choice(["plain", "noise", "gradient", "photo"], p=[0.35, 0.2, 0.15, 0.3]))
    if kind == "photo":
        return kind, _photo(rng, width, height, held_out)
    base = np.broadcast_to(_background_color(rng), (height, width, 3)).astype(np.float32)
    if kind == "noise":
        base = base + _noise(rng, width, height)
    if kind == "gradient":
        base = _gradient(rng, base)
    return kind, np.clip(base, 0, 255)


def _background_color(rng: np.random.Generator) -> np.ndarray:
    draw = rng.random()
    if draw < 0.3:
        return np.array([255, 255, 255], np.float32)
    if draw < 0.4:
        return np.zeros(3, np.float32)
    if draw < 0.6:
        return np.full(3, rng.uniform(20, 250), np.float32)
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.05, 0.45), rng.uniform(0.25, 1.0))
    return np.array(rgb, np.float32) * 255


def _noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Grey or coloured noise of a random grain size, (H, W, 3)."""
    grain = float(rng.choice([1, 2, 4, 12, 40]))
    small = rng.standard_normal((max(2, int(height / grain)), max(2, int(width / grain)), 3), dtype=np.float32)
    if rng.random() < 0.4:
        small = small[:, :, :1].repeat(3, axis=2)
    small = np.clip(128 + 40 * small, 0, 255).astype(np.uint8)
    big = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR), np.float32) - 128
    return big * rng.uniform(0.2, 1.0)


def _gradient(rng: np.random.Generator, base: np.ndarray) -> np.ndarray:
    height, width = base.shape[:2]
    angle = rng.uniform(0, 2 * math.pi)
    across = np.linspace(-1, 1, width, dtype=np.float32)[None] * math.cos(angle)
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * math.sin(angle)
    share = (np.clip((across + down) / 2 + 0.5, 0, 1))[..., None]
    return base * (1 - share) + _background_color(rng) * share


@lru_cache(maxsize=1)
def _photographs() -> tuple[Image.Image, ...]:
    """The photographs that ship with scikit-image, RGB, at most 640 pixels wide."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return tuple(_shrunk(Image.open(folder / name).convert("RGB"), 640) for name in PHOTOS)


def _shrunk(image: Image.Image, width: int) -> Image.Image:
    if image.width <= width:
        return image
    return image.resize((width, round(image.height * width / image.width)), Image.Resampling.BICUBIC)


def _photo(rng: np.random.Generator, width: int, height: int, held_out: bool) -> np.ndarray:
    image = _photographs()[int(rng.integers(len(PHOTOS)))]
    edge = int(image.width * HELD_OUT_FROM)
    left, right = (edge, image.width) if held_out else (0, edge)
    crop_w = rng.uniform(0.5, 1.0) * (right - left)
    crop_h = min(crop_w * height / width, image.height)
    x, y = rng.uniform(left, right - crop_w), rng.uniform(0, image.height - crop_h)
    part = image.resize((width, height), Image.Resampling.BICUBIC, box=(x, y, x + crop_w, y + crop_h))
    if rng.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(part, np.float32) * rng.uniform(0.7, 1.1)


def finish(rng: np.random.Generator | None, canvas: np.ndarray) -> Image.Image:
    """Data augmentation: sensor noise and blur on some scenes (none without `rng`), then 8 bits."""
    if rng is not None and rng.random() < 0.25:
        canvas = canvas + rng.standard_normal(canvas.shape, dtype=np.float32) * rng.uniform(1, 8)
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    if rng is not None and rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    return image

"""Synthetic scenes: coloured shapes on plain, noisy, graded and photographic backgrounds, with their ground truth.

A scene is drawn at a native size as a photograph would be; what the model sees (stretched squares) comes later.
Everything is a pure function of the seed. The `held_out` split uses parts of the photographs that training never sees.
"""

import colorsys
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle", "star")

# (hue degrees low, high), (saturation low, high), (value low, high): unambiguous under a person's eye
HSV_RANGES = {
    "red": ((-9, 8), (0.75, 1.0), (0.6, 1.0)),
    "green": ((95, 148), (0.55, 1.0), (0.4, 1.0)),
    "blue": ((206, 243), (0.6, 1.0), (0.5, 1.0)),
    "yellow": ((50, 62), (0.7, 1.0), (0.85, 1.0)),
    "purple": ((268, 302), (0.45, 1.0), (0.4, 0.9)),
    "orange": ((22, 39), (0.8, 1.0), (0.88, 1.0)),
}
CSS_RGB = {
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "purple": (128, 0, 128),
    "orange": (255, 165, 0),
}
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
MIN_DIAMETER, MAX_DIAMETER = 0.1, 0.5  # of the shorter side
SUPERSAMPLE = 4


@dataclass(frozen=True)
class Thing:
    """One object: its names, centre and radius in pixels, and what drawing needs."""

    color: str
    shape: str
    x: float
    y: float
    radius: float
    angle: float  # radians
    rgb: tuple[int, int, int]

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """A picture and its truth: `labels` (H, W) uint8 holds 0 for background and i + 1 for `things[i]`."""

    image: Image.Image
    things: tuple[Thing, ...]
    labels: np.ndarray
    background: str

    def mask(self, index: int) -> np.ndarray:
        return self.labels == index + 1


CROWD = 14  # most objects of a crowded scene


def make_scene(seed: int, held_out: bool = False, longest: int = 1000, crowded: bool = False) -> Scene:
    """Draw the scene of `seed`; sides of 200 to `longest` pixels, at most 2:1, 1 to 5 objects.

    A crowded one, of many smaller objects, is not what the model is asked about: it teaches an encoder more for the
    same work.
    """
    rng = np.random.default_rng([seed, int(held_out)])
    for _ in range(20):
        scene = _attempt(rng, held_out, longest, crowded)
        if scene is not None:
            return scene
    raise RuntimeError(f"no scene could be laid out for seed {seed}")


def _attempt(rng: np.random.Generator, held_out: bool, longest: int, crowded: bool) -> Scene | None:
    width, height = picture_size(rng, longest)
    kind, background = background_of(rng, width, height, held_out)
    things = _crowd(rng, background) if crowded else layout(rng, background, int(rng.integers(1, 6)))
    canvas, labels = _draw(rng, background, things)
    for index, thing in enumerate(things):
        if (labels == index + 1).sum() < 0.7 * _area(thing):
            return None
    return Scene(finish(rng, canvas), tuple(things), labels, kind)


def picture_size(rng: np.random.Generator, longest: int) -> tuple[int, int]:
    long_side = math.exp(rng.uniform(math.log(220), math.log(longest)))
    ratio = 1.0 if rng.random() < 0.25 else math.exp(rng.uniform(0, math.log(2)))
    short_side = max(200, round(long_side / ratio))
    long_side = max(round(long_side), short_side)
    return (long_side, short_side) if rng.random() < 0.6 else (short_side, long_side)


# ------------------------------------------------------------------------------------------------ backgrounds
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


# ------------------------------------------------------------------------------------------------ layout
def layout(rng: np.random.Generator, background: np.ndarray, count: int) -> list[Thing]:
    things: list[Thing] = []
    names = _names(rng, count)
    tries = 0
    while len(things) < count:
        thing = _place(rng, background, *names[len(things)], shrink=0.97**tries)
        tries += 1
        if all(_apart(thing, other) for other in things) and _stands_out(thing, background):
            things.append(thing)
            tries = 0
        elif tries > 60:
            things.append(thing)
    return things


def _crowd(rng: np.random.Generator, background: np.ndarray) -> list[Thing]:
    """As many objects as thirty tries place, of all colours and shapes and a tenth to a third of the shorter side."""
    things: list[Thing] = []
    for _ in range(30):
        name = COLORS[int(rng.integers(len(COLORS)))], SHAPES[int(rng.integers(len(SHAPES)))]
        thing = _place(rng, background, *name, shrink=0.65)
        fits = all(_apart(thing, other) for other in things) and _stands_out(thing, background)
        if fits and len(things) < CROWD:
            things.append(thing)
    return things


def _names(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Colour and shape of each object; some scenes share one colour or one shape so that both words matter."""
    few_colors = rng.permutation(len(COLORS))[: int(rng.integers(1, 7))]
    few_shapes = rng.permutation(len(SHAPES))[: int(rng.integers(1, 5))]
    return [(COLORS[int(rng.choice(few_colors))], SHAPES[int(rng.choice(few_shapes))]) for _ in range(count)]


def _place(rng: np.random.Generator, background: np.ndarray, color: str, shape: str, shrink: float) -> Thing:
    height, width = background.shape[:2]
    short = min(height, width)
    diameter = max(MIN_DIAMETER, rng.uniform(MIN_DIAMETER, MAX_DIAMETER) * shrink) * short
    radius = diameter / 2
    reach = min(radius * 1.05, short / 2)
    x, y = rng.uniform(reach, width - reach), rng.uniform(reach, height - reach)
    return Thing(color, shape, x, y, radius, _angle(rng, shape), _rgb(rng, color))


def _angle(rng: np.random.Generator, shape: str) -> float:
    if shape == "circle":
        return 0.0
    return rng.normal(0, 0.08) if rng.random() < 0.55 else rng.uniform(0, 2 * math.pi)


def _rgb(rng: np.random.Generator, color: str) -> tuple[int, int, int]:
    if rng.random() < 0.2:
        return CSS_RGB[color]
    (h0, h1), (s0, s1), (v0, v1) = HSV_RANGES[color]
    rgb = colorsys.hsv_to_rgb((rng.uniform(h0, h1) / 360) % 1.0, rng.uniform(s0, s1), rng.uniform(v0, v1))
    red, green, blue = (round(255 * c) for c in rgb)
    return red, green, blue


def _apart(a: Thing, b: Thing) -> bool:
    return math.hypot(a.x - b.x, a.y - b.y) > 0.92 * (a.radius + b.radius)


def _stands_out(thing: Thing, background: np.ndarray) -> bool:
    r = int(thing.radius)
    x, y = int(thing.x), int(thing.y)
    around = background[max(0, y - r) : y + r + 1 : 4, max(0, x - r) : x + r + 1 : 4].reshape(-1, 3).mean(0)
    return float(np.linalg.norm(around - np.array(thing.rgb))) > 80


# ------------------------------------------------------------------------------------------------ drawing
def outline(thing: Thing) -> list[tuple[float, float]]:
    """Corners of a polygon shape around (0, 0), in pixels."""
    turn = {"square": math.pi / 4, "triangle": -math.pi / 2, "star": -math.pi / 2}[thing.shape] + thing.angle
    if thing.shape == "star":
        radii = [thing.radius * 1.1, thing.radius * 0.46] * 5
    else:
        radii = [thing.radius * 1.12] * {"square": 4, "triangle": 3}[thing.shape]
    step = 2 * math.pi / len(radii)
    return [(r * math.cos(turn + i * step), r * math.sin(turn + i * step)) for i, r in enumerate(radii)]


def _area(thing: Thing) -> float:
    """Area in square pixels of the whole shape."""
    if thing.shape == "circle":
        return math.pi * thing.radius**2
    points = outline(thing)
    shifted = points[1:] + points[:1]
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points, shifted, strict=True))) / 2


def coverage(thing: Thing, width: int, height: int, smooth: bool) -> tuple[tuple[slice, slice], np.ndarray]:
    """The part of the picture that the shape touches and, over it, the share of each pixel covered, 0 to 1."""
    reach = thing.radius * 1.15 + 2
    x0, y0 = max(0, math.floor(thing.x - reach)), max(0, math.floor(thing.y - reach))
    x1, y1 = min(width, math.ceil(thing.x + reach)), min(height, math.ceil(thing.y + reach))
    if x1 <= x0 or y1 <= y0:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32)
    scale = SUPERSAMPLE if smooth else 1
    canvas = Image.new("L", ((x1 - x0) * scale, (y1 - y0) * scale), 0)
    cx, cy = (thing.x - x0) * scale, (thing.y - y0) * scale
    pen = ImageDraw.Draw(canvas)
    if thing.shape == "circle":
        r = thing.radius * scale
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=255)
    else:
        pen.polygon([(cx + dx * scale, cy + dy * scale) for dx, dy in outline(thing)], fill=255)
    if smooth:
        canvas = canvas.reduce(SUPERSAMPLE)
    return (slice(y0, y1), slice(x0, x1)), np.asarray(canvas, np.float32) / 255


def _draw(rng: np.random.Generator, background: np.ndarray, things: list[Thing]) -> tuple[np.ndarray, np.ndarray]:
    height, width = background.shape[:2]
    canvas, labels = background.copy(), np.zeros((height, width), np.uint8)
    smooth = rng.random() < 0.75
    for index, thing in enumerate(things):
        where, cover = coverage(thing, width, height, smooth)
        color = paint(rng, thing, cover.shape)
        canvas[where] = canvas[where] * (1 - cover[..., None]) + color * cover[..., None]
        labels[where][cover >= 0.5] = index + 1
    return canvas, labels


def paint(rng: np.random.Generator, thing: Thing, shape: tuple[int, ...]) -> np.ndarray:
    """Flat colour, or colour with a slight shade across it or a slight grain."""
    color = np.broadcast_to(np.array(thing.rgb, np.float32), (*shape, 3))
    style = rng.random()
    if style < 0.2:
        shade = np.linspace(rng.uniform(0.75, 1.0), 1.0, shape[1], dtype=np.float32)
        color = color * shade[None, :, None]
    elif style < 0.35:
        color = color + rng.standard_normal((*shape, 1), dtype=np.float32) * rng.uniform(4, 14)
    return color


def finish(rng: np.random.Generator | None, canvas: np.ndarray) -> Image.Image:
    """Sensor noise and blur on some scenes (none without `rng`), then 8 bits."""
    if rng is not None and rng.random() < 0.25:
        canvas = canvas + rng.standard_normal(canvas.shape, dtype=np.float32) * rng.uniform(1, 8)
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    if rng is not None and rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    return image

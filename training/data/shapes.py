"""The objects of synthetic pictures: their colours and shapes, and how one is painted."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

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


def outline(thing: Thing) -> list[tuple[float, float]]:
    """Corners of a polygon shape around (0, 0), in pixels."""
    turn = {"square": math.pi / 4, "triangle": -math.pi / 2, "star": -math.pi / 2}[thing.shape] + thing.angle
    if thing.shape == "star":
        radii = [thing.radius * 1.1, thing.radius * 0.46] * 5
    else:
        radii = [thing.radius * 1.12] * {"square": 4, "triangle": 3}[thing.shape]
    step = 2 * math.pi / len(radii)
    return [(r * math.cos(turn + i * step), r * math.sin(turn + i * step)) for i, r in enumerate(radii)]


def area_of(thing: Thing) -> float:
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

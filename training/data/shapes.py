"""The objects of synthetic pictures: their colours and shapes, and how one is painted."""

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

COLORS = (
    *("red", "green", "blue", "yellow", "purple", "orange"),
    *("black", "white", "gray", "pink", "brown", "cyan"),
)
SHAPES = ("circle", "square", "triangle", "star", "rectangle", "oval", "diamond", "hexagon", "heart")


@dataclass(frozen=True)
class Vocabulary:
    """Words for what a picture shows; `outlines`: whether some objects are drawn as outlines."""

    colors: tuple[str, ...]
    shapes: tuple[str, ...]
    outlines: bool


BASIC = Vocabulary(COLORS[:6], SHAPES[:4], outlines=False)
"""What the first three editions knew, and what the rows of the evaluation but `edges` are about."""
WHOLE = Vocabulary(COLORS, SHAPES, outlines=True)

# (hue degrees low, high), (saturation low, high), (value low, high): unambiguous under a person's eye
HSV_RANGES = {
    "red": ((-9, 8), (0.75, 1.0), (0.6, 1.0)),
    "green": ((95, 148), (0.55, 1.0), (0.4, 1.0)),
    "blue": ((206, 243), (0.6, 1.0), (0.5, 1.0)),
    "yellow": ((50, 62), (0.7, 1.0), (0.85, 1.0)),
    "purple": ((268, 302), (0.45, 1.0), (0.4, 0.9)),
    "orange": ((22, 39), (0.8, 1.0), (0.88, 1.0)),
    "black": ((0, 360), (0.0, 0.6), (0.0, 0.12)),
    "white": ((0, 360), (0.0, 0.04), (0.95, 1.0)),
    "gray": ((0, 360), (0.0, 0.06), (0.38, 0.64)),
    "pink": ((322, 352), (0.28, 0.5), (0.92, 1.0)),
    "brown": ((16, 32), (0.6, 0.9), (0.3, 0.52)),
    "cyan": ((176, 190), (0.65, 1.0), (0.78, 1.0)),
}
CSS_RGB = {
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "purple": (128, 0, 128),
    "orange": (255, 165, 0),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "gray": (128, 128, 128),
    "pink": (255, 192, 203),
    "brown": (139, 69, 19),  # saddlebrown: what CSS calls brown is a dark red
    "cyan": (0, 255, 255),
}
SUPERSAMPLE = 4


@dataclass(frozen=True)
class Thing:
    """One object: its names, centre and radius in pixels, and what drawing needs. `aspect`: the shorter of its two
    diameters over the longer, of shapes that have two; `hollow`: how large the empty inside of an outline is beside the
    shape, 0 where it is filled."""

    color: str
    shape: str
    x: float
    y: float
    radius: float
    angle: float  # radians
    rgb: tuple[int, int, int]
    aspect: float = 1.0
    hollow: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


def outline(thing: Thing) -> list[tuple[float, float]]:
    """Corners of a shape around (0, 0), in pixels: of all but the circle. A diamond stands upright on a corner and is
    taller than wide; a square stays one however it is turned."""
    if thing.shape in CURVES:
        return [_turned(x * thing.radius, y * thing.radius, thing.angle) for x, y in CURVES[thing.shape](thing.aspect)]
    turn = {"square": math.pi / 4, "hexagon": 0.0}.get(thing.shape, -math.pi / 2) + thing.angle
    if thing.shape == "star":
        radii = [thing.radius * 1.1, thing.radius * 0.46] * 5
    else:
        radii = [thing.radius * 1.12] * {"square": 4, "triangle": 3, "hexagon": 6}[thing.shape]
    step = 2 * math.pi / len(radii)
    return [(r * math.cos(turn + i * step), r * math.sin(turn + i * step)) for i, r in enumerate(radii)]


def _turned(x: float, y: float, angle: float) -> tuple[float, float]:
    return x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)


def _rectangle(aspect: float) -> list[tuple[float, float]]:
    long = 1.12 / math.hypot(1, aspect)
    return [(a * long, b * long * aspect) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]


def _diamond(aspect: float) -> list[tuple[float, float]]:
    return [(a * 1.1 * aspect, b * 1.1) for a, b in ((0, -1), (1, 0), (0, 1), (-1, 0))]


def _oval(aspect: float) -> list[tuple[float, float]]:
    return [(1.1 * math.cos(i * math.tau / 48), 1.1 * aspect * math.sin(i * math.tau / 48)) for i in range(48)]


def _heart(aspect: float) -> list[tuple[float, float]]:
    """The customary curve of sin^3 t and four cosines."""
    points = []
    for t in (i * math.tau / 48 for i in range(48)):
        up = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((math.sin(t) ** 3, -(up + 2.5) / 16))
    return points


CURVES = {"rectangle": _rectangle, "diamond": _diamond, "oval": _oval, "heart": _heart}
"""Outlines of radius one, by their aspect, of shapes that are no regular polygons."""


def area_of(thing: Thing) -> float:
    """Area in square pixels of the whole shape."""
    if thing.shape == "circle":
        return math.pi * thing.radius**2
    points = outline(thing)
    shifted = points[1:] + points[:1]
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points, shifted, strict=True))) / 2


def coverage(thing: Thing, width: int, height: int, smooth: bool) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """The part of the picture that the shape touches and, over it, the shares of each pixel, 0 to 1, that are painted
    and that the whole shape covers: an outline's inside is part of it."""
    reach = thing.radius * 1.15 + 2
    x0, y0 = max(0, math.floor(thing.x - reach)), max(0, math.floor(thing.y - reach))
    x1, y1 = min(width, math.ceil(thing.x + reach)), min(height, math.ceil(thing.y + reach))
    if x1 <= x0 or y1 <= y0:
        nothing = np.zeros((0, 0), np.float32)
        return (slice(0, 0), slice(0, 0)), nothing, nothing
    whole = _share(replace(thing, x=thing.x - x0, y=thing.y - y0), x1 - x0, y1 - y0, smooth)
    painted = whole
    if thing.hollow:
        inside = replace(thing, x=thing.x - x0, y=thing.y - y0, radius=thing.radius * thing.hollow)
        painted = whole - _share(inside, x1 - x0, y1 - y0, smooth)
    return (slice(y0, y1), slice(x0, x1)), painted, whole


def _share(thing: Thing, width: int, height: int, smooth: bool) -> np.ndarray:
    """Of each of (height, width) pixels, the share that the shape covers."""
    scale = SUPERSAMPLE if smooth else 1
    canvas = Image.new("L", (width * scale, height * scale), 0)
    cx, cy = thing.x * scale, thing.y * scale
    pen = ImageDraw.Draw(canvas)
    if thing.shape == "circle":
        r = thing.radius * scale
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=255)
    else:
        pen.polygon([(cx + dx * scale, cy + dy * scale) for dx, dy in outline(thing)], fill=255)
    if smooth:
        canvas = canvas.reduce(SUPERSAMPLE)
    return np.asarray(canvas, np.float32) / 255


def paint(rng: np.random.Generator, thing: Thing, shape: tuple[int, ...]) -> np.ndarray:
    """Flat colour, or colour with a slight shade across it or a slight grain."""
    color = np.broadcast_to(np.array(thing.rgb, np.float32), (*shape, 3))
    style = rng.random()
    if style < 0.2:
        darkest = 0.92 if thing.color == "white" else 0.75
        shade = np.linspace(rng.uniform(darkest, 1.0), 1.0, shape[1], dtype=np.float32)
        color = color * shade[None, :, None]
    elif style < 0.35:
        color = color + rng.standard_normal((*shape, 1), dtype=np.float32) * rng.uniform(4, 14)
    return color

"""Short films of moving shapes: they cross before one another, leave the picture, and come back at times."""

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from training.data.backgrounds import background_of, finish, picture_size
from training.data.scenes import layout, words_of
from training.data.shapes import Thing, Vocabulary, coverage, paint

MAX_SPEED = 0.03  # of the shorter side, a frame
LEAVE_SHARE, CROSS_SHARE = 0.3, 0.5
SENSOR_NOISE = 4.0


@dataclass(frozen=True)
class Clip:
    """`images` of T frames, the objects as they are in the first, and `labels` (T, H, W) uint8: 0 for background,
    i + 1 where object i is seen. Later objects are in front."""

    images: tuple[Image.Image, ...]
    things: tuple[Thing, ...]
    labels: np.ndarray


@dataclass(frozen=True)
class Path:
    """How an object moves: pixels a frame, radians a frame, growth a frame; whether it turns back at the borders."""

    dx: float
    dy: float
    spin: float
    growth: float
    bounces: bool


def make_clip(
    seed: int, frames: int, held_out: bool = False, longest: int = 640, words: Vocabulary | None = None
) -> Clip:
    """The clip of `seed`: 1 to 4 objects, all of them whole in the first frame; `words` as of `make_scene`."""
    rng = np.random.default_rng([seed, 404, int(held_out)])
    width, height = picture_size(rng, longest)
    _, background = background_of(rng, width, height, held_out)
    things = layout(rng, background, int(rng.integers(1, 5)), words or words_of(seed))
    paths = [_path(rng, things, index, width, height) for index in range(len(things))]
    grain, styles = rng.random() < 0.3, [int(rng.integers(1 << 30)) for _ in things]
    images, labels = [], []
    for frame in range(frames):
        moved = [_at(thing, path, frame, width, height) for thing, path in zip(things, paths, strict=True)]
        canvas, label = _draw(background, moved, styles)
        if grain:
            canvas = canvas + rng.standard_normal(canvas.shape, dtype=np.float32) * SENSOR_NOISE
        images.append(finish(None, canvas))
        labels.append(label)
    return Clip(tuple(images), tuple(things), np.stack(labels))


def _path(rng: np.random.Generator, things: list[Thing], index: int, width: int, height: int) -> Path:
    """Towards another object, out of the picture, or anywhere; a tenth stands still."""
    short, me = min(width, height), things[index]
    speed = 0.0 if rng.random() < 0.1 else short * MAX_SPEED * math.sqrt(rng.uniform(0.05, 1))
    angle, bounces = rng.uniform(0, 2 * math.pi), True
    draw = rng.random()
    if draw < CROSS_SHARE and len(things) > 1:
        other = things[(index + int(rng.integers(1, len(things)))) % len(things)]
        angle = math.atan2(other.y - me.y, other.x - me.x) + rng.normal(0, 0.15)
    elif draw < CROSS_SHARE + LEAVE_SHARE:
        angle, bounces = math.atan2(me.y - height / 2, me.x - width / 2) + rng.normal(0, 0.3), False
    return Path(
        speed * math.cos(angle), speed * math.sin(angle), rng.normal(0, 0.03), rng.uniform(-0.01, 0.01), bounces
    )


def _at(thing: Thing, path: Path, frame: int, width: int, height: int) -> Thing:
    x, y = thing.x + path.dx * frame, thing.y + path.dy * frame
    if path.bounces:
        x, y = _between(x, thing.radius, width - thing.radius), _between(y, thing.radius, height - thing.radius)
    radius = thing.radius * (1 + path.growth) ** frame
    return replace(thing, x=x, y=y, radius=radius, angle=thing.angle + path.spin * frame)


def _between(value: float, low: float, high: float) -> float:
    """A ball's place between two walls."""
    span = max(high - low, 1.0)
    phase = (value - low) % (2 * span)
    return low + (phase if phase <= span else 2 * span - phase)


def _draw(background: np.ndarray, things: list[Thing], styles: list[int]) -> tuple[np.ndarray, np.ndarray]:
    height, width = background.shape[:2]
    canvas, labels = background.copy(), np.zeros((height, width), np.uint8)
    for index, (thing, style) in enumerate(zip(things, styles, strict=True)):
        reach = 1.2 * thing.radius
        if not (-reach < thing.x < width + reach and -reach < thing.y < height + reach):
            continue
        where, cover, whole = coverage(thing, width, height, smooth=True)
        if cover.size:
            color = paint(np.random.default_rng(style), thing, cover.shape)
            canvas[where] = canvas[where] * (1 - cover[..., None]) + color * cover[..., None]
            labels[where][whole >= 0.5] = index + 1
    return canvas, labels

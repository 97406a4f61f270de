"""Synthetic scenes: coloured shapes on backgrounds of all kinds, with their ground truth.

A scene is drawn at a native size as a photograph would be; what the model sees (stretched squares) comes later.
Everything is a pure function of the seed.
"""

import colorsys
import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from training.data.backgrounds import background_of, finish, picture_size
from training.data.shapes import BASIC, CSS_RGB, HSV_RANGES, WHOLE, Thing, Vocabulary, area_of, coverage, paint

MIN_DIAMETER, MAX_DIAMETER = 0.1, 0.5  # of the shorter side
CROWD = 14  # most objects of a crowded scene
OUTLINED = 0.12  # share of objects that are outlines
ASPECTS = {"rectangle": (0.4, 0.65), "oval": (0.42, 0.65), "diamond": (0.45, 0.74)}
UPRIGHT = {"diamond": 0.06, "heart": 0.12}  # radians of their turns' spread


@dataclass(frozen=True)
class Scene:
    """A picture and its truth: `labels` (H, W) uint8 holds 0 for background and i + 1 for `things[i]`."""

    image: Image.Image
    things: tuple[Thing, ...]
    labels: np.ndarray
    background: str

    def mask(self, index: int) -> np.ndarray:
        return self.labels == index + 1


def words_of(seed: int) -> Vocabulary:
    """Every other scene keeps to the basic words, which are asked for most."""
    return WHOLE if seed % 2 else BASIC


def make_scene(
    seed: int,
    held_out: bool = False,
    longest: int = 1000,
    crowded: bool = False,
    words: Vocabulary | None = None,
) -> Scene:
    """Draw the scene of `seed`; sides of 200 to `longest` pixels, at most 2:1, 1 to 5 objects of these `words`; without
    any, those of the seed, and all for a crowded one.

    A crowded one, of many smaller objects, is not what the model is asked about: it teaches an encoder more for the
    same work.
    """
    rng = np.random.default_rng([seed, int(held_out)])
    for _ in range(20):
        scene = _attempt(rng, held_out, longest, crowded, words or (WHOLE if crowded else words_of(seed)))
        if scene is not None:
            return scene
    raise RuntimeError(f"no scene could be laid out for seed {seed}")


def make_blank(seed: int, held_out: bool = False, longest: int = 1000) -> Scene:
    """The picture of `seed` that shows nothing but its background."""
    rng = np.random.default_rng([seed, 505, int(held_out)])
    kind, background = background_of(rng, *picture_size(rng, longest), held_out)
    return Scene(finish(rng, background), (), np.zeros(background.shape[:2], np.uint8), kind)


def make_alike(seed: int, longest: int = 1000) -> Scene:
    """The scene of `seed` with six to nine objects of one or two colours and shapes, as large as there is room for."""
    rng = np.random.default_rng([seed, 606])
    width, height = picture_size(rng, longest)
    kind, background = background_of(rng, width, height, False)
    words = words_of(seed)
    count, colors = int(rng.integers(6, 10)), rng.permutation(words.colors)[: int(rng.integers(1, 3))]
    shapes = rng.permutation(words.shapes)[: int(rng.integers(1, 3))]
    things: list[Thing] = []
    for tries in range(200):
        name = str(rng.choice(colors)), str(rng.choice(shapes))
        thing = _place(rng, background, *name, shrink=0.6 * 0.985**tries)
        if len(things) < count and all(_apart(thing, other) for other in things) and _can_be_seen(thing, background):
            things.append(thing)
    return _finished(rng, background, things, kind)


def make_tiny(seed: int, longest: int = 1000) -> Scene:
    """The scene of `seed` with one to three objects of a twentieth to a tenth of the shorter side."""
    rng = np.random.default_rng([seed, 707])
    width, height = picture_size(rng, longest)
    kind, background = background_of(rng, width, height, False)
    things: list[Thing] = []
    words = words_of(seed)
    for name in _names(rng, int(rng.integers(1, 4)), words):
        thing = _place(rng, background, *name, shrink=0.0)
        thing = replace(thing, radius=thing.radius * rng.uniform(0.5, 1.0))
        if all(_apart(thing, other) for other in things) and _stands_out(thing, background):
            things.append(thing)
    return _finished(rng, background, things, kind)


def _finished(rng: np.random.Generator, background: np.ndarray, things: list[Thing], kind: str) -> Scene:
    canvas, labels = _draw(rng, background, things)
    seen = [index for index in range(len(things)) if (labels == index + 1).any()]
    if len(seen) < len(things):  # one of less than a pixel
        things = [things[index] for index in seen]
        canvas, labels = _draw(rng, background, things)
    return Scene(finish(rng, canvas), tuple(things), labels, kind)


def _attempt(rng: np.random.Generator, held_out: bool, longest: int, crowded: bool, words: Vocabulary) -> Scene | None:
    width, height = picture_size(rng, longest)
    kind, background = background_of(rng, width, height, held_out)
    things = _crowd(rng, background, words) if crowded else layout(rng, background, int(rng.integers(1, 6)), words)
    canvas, labels = _draw(rng, background, things)
    for index, thing in enumerate(things):
        if (labels == index + 1).sum() < 0.7 * area_of(thing):
            return None
    return Scene(finish(rng, canvas), tuple(things), labels, kind)


def layout(rng: np.random.Generator, background: np.ndarray, count: int, words: Vocabulary) -> list[Thing]:
    """So many objects apart from each other; one of a colour that the background swallows gives way to another."""
    things: list[Thing] = []
    names = _names(rng, count, words)
    tries = 0
    while len(things) < count:
        thing = _place(rng, background, *names[len(things)], shrink=0.97**tries, outlines=words.outlines)
        tries += 1
        if all(_apart(thing, other) for other in things) and _stands_out(thing, background):
            things.append(thing)
            tries = 0
        elif tries > 60 and not _can_be_seen(thing, background):
            names[len(things)] = _names(rng, 1, BASIC)[0]
        elif tries > 60:
            things.append(thing)
    return things


def _crowd(rng: np.random.Generator, background: np.ndarray, words: Vocabulary) -> list[Thing]:
    """As many objects as thirty tries place, of all colours and shapes and a tenth to a third of the shorter side."""
    things: list[Thing] = []
    for _ in range(30):
        name = words.colors[int(rng.integers(len(words.colors)))], words.shapes[int(rng.integers(len(words.shapes)))]
        thing = _place(rng, background, *name, shrink=0.65, outlines=words.outlines)
        fits = all(_apart(thing, other) for other in things) and _stands_out(thing, background)
        if fits and len(things) < CROWD:
            things.append(thing)
    return things


def _names(rng: np.random.Generator, count: int, words: Vocabulary) -> list[tuple[str, str]]:
    """Colour and shape of each object; some scenes share one colour or one shape so that both words matter."""
    colors, shapes = words.colors, words.shapes
    few_colors = rng.permutation(len(colors))[: int(rng.integers(1, 7))]
    few_shapes = rng.permutation(len(shapes))[: int(rng.integers(1, 5))]
    return [(colors[int(rng.choice(few_colors))], shapes[int(rng.choice(few_shapes))]) for _ in range(count)]


def _place(
    rng: np.random.Generator, background: np.ndarray, color: str, shape: str, shrink: float, outlines: bool = False
) -> Thing:
    height, width = background.shape[:2]
    short = min(height, width)
    diameter = max(MIN_DIAMETER, rng.uniform(MIN_DIAMETER, MAX_DIAMETER) * shrink) * short
    radius = diameter / 2
    reach = min(radius * 1.05, short / 2)
    x, y = rng.uniform(reach, width - reach), rng.uniform(reach, height - reach)
    thing = Thing(color, shape, x, y, radius, _angle(rng, shape), _rgb(rng, color))
    if shape in ASPECTS:
        thing = replace(thing, aspect=rng.uniform(*ASPECTS[shape]))
    if outlines and rng.random() < OUTLINED:
        thing = replace(thing, hollow=rng.uniform(0.72, 0.9))
    return thing


def _angle(rng: np.random.Generator, shape: str) -> float:
    if shape == "circle":
        return 0.0
    if shape in UPRIGHT:
        return rng.normal(0, UPRIGHT[shape])
    if rng.random() < 0.55:
        lies = shape in ASPECTS and rng.random() < 0.4
        return rng.normal(0, 0.08) + (math.pi / 2 if lies else 0.0)
    return rng.uniform(0, 2 * math.pi)


def _rgb(rng: np.random.Generator, color: str) -> tuple[int, int, int]:
    if rng.random() < 0.2:
        return CSS_RGB[color]
    (h0, h1), (s0, s1), (v0, v1) = HSV_RANGES[color]
    rgb = colorsys.hsv_to_rgb((rng.uniform(h0, h1) / 360) % 1.0, rng.uniform(s0, s1), rng.uniform(v0, v1))
    red, green, blue = (round(255 * c) for c in rgb)
    return red, green, blue


def _apart(a: Thing, b: Thing) -> bool:
    return math.hypot(a.x - b.x, a.y - b.y) > 0.92 * (a.radius + b.radius)


def _can_be_seen(thing: Thing, background: np.ndarray) -> bool:
    """Basic colours stand out of most backgrounds; the others have to."""
    return thing.color in BASIC.colors or _stands_out(thing, background)


def _stands_out(thing: Thing, background: np.ndarray) -> bool:
    r = int(thing.radius)
    x, y = int(thing.x), int(thing.y)
    around = background[max(0, y - r) : y + r + 1 : 4, max(0, x - r) : x + r + 1 : 4].reshape(-1, 3).mean(0)
    return float(np.linalg.norm(around - np.array(thing.rgb))) > 80


def _draw(rng: np.random.Generator, background: np.ndarray, things: list[Thing]) -> tuple[np.ndarray, np.ndarray]:
    height, width = background.shape[:2]
    canvas, labels = background.copy(), np.zeros((height, width), np.uint8)
    smooth = rng.random() < 0.75
    for index, thing in enumerate(things):
        where, cover, whole = coverage(thing, width, height, smooth)
        color = paint(rng, thing, cover.shape)
        canvas[where] = canvas[where] * (1 - cover[..., None]) + color * cover[..., None]
        labels[where][whole >= 0.5] = index + 1
    return canvas, labels

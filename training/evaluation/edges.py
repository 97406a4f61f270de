"""The edges of what a nano model is asked: 300 cases, a fixed list, each with what is right.

Words that it has no object for, pictures of nothing and of more than it counts, colours and shapes beside its own,
customary system prompts and greetings, small objects in large pictures, and what people try first. Words and prompts
are other ones than training's (`training/questions/unknown_words.py`).
"""

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from sa2va_bento.types import Prediction
from training.data.backgrounds import background_of, finish
from training.data.shapes import BASIC, COLORS, SHAPES
from training.evaluation.scoring import mask_iou, united
from training.evaluation.tasks import Marks, Question

RGB = {
    **{"red": (220, 30, 30), "green": (20, 150, 40), "blue": (30, 60, 220), "yellow": (245, 225, 20)},
    **{"purple": (130, 30, 150), "orange": (250, 150, 10), "black": (10, 10, 10), "white": (250, 250, 250)},
    **{"gray": (128, 128, 128), "pink": (255, 150, 190), "brown": (120, 70, 30), "cyan": (0, 220, 230)},
}
ONLY = "only know"
UNKNOWN = (
    *("zebra", "penguin", "cactus", "saxophone", "helicopter", "pumpkin", "octopus", "lighthouse", "violin", "lemon"),
    *("kangaroo", "mushroom", "telescope", "wheelchair", "canoe", "parrot", "volcano", "hammock", "anchor", "compass"),
    *("squirrel", "skateboard", "ladder", "trumpet", "snowman"),
)
SYSTEMS = (
    "You are a helpful AI assistant.",
    "You are a helpful vision assistant. Answer truthfully.",
    "You are an intelligent assistant for image understanding.",
    "You are a friendly chatbot.",
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "Answer the user's question in one sentence.",
    "Always answer in English.",
    "You are a computer vision model that segments objects.",
)
HELLOS = ("Hi there,", "Hello, assistant!", "Good afternoon.", "Hey there!")
ALONE = "You are a helpful assistant."
CANVAS = (640, 480)


@dataclass(frozen=True)
class Drawn:
    """An object: its names, centre and radius in pixels."""

    color: str
    shape: str
    x: float
    y: float
    radius: float
    is_outline: bool = False

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


def corners(thing: Drawn) -> list[tuple[float, float]]:
    """Its outline."""
    r = thing.radius
    if thing.shape == "heart":
        angles = [i * math.tau / 60 for i in range(60)]
        return [
            (
                thing.x + r * 16 * math.sin(t) ** 3 / 16,
                thing.y - r * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16,
            )
            for t in angles
        ]
    if thing.shape in ("circle", "oval"):
        tall = 0.6 if thing.shape == "oval" else 1.0
        angles = [i * math.tau / 72 for i in range(72)]
        return [(thing.x + r * math.cos(t), thing.y + tall * r * math.sin(t)) for t in angles]
    if thing.shape == "rectangle":
        return [(thing.x + a * r, thing.y + b * 0.55 * r) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    if thing.shape == "diamond":
        return [(thing.x + a * 0.7 * r, thing.y + b * r) for a, b in ((0, -1), (1, 0), (0, 1), (-1, 0))]
    if thing.shape == "star":
        radii, sides, turn = (r, 0.42 * r), 10, -math.pi / 2
    else:
        sides = {"square": 4, "triangle": 3, "hexagon": 6}[thing.shape]
        radii, turn = (r, r), math.pi / 4 if thing.shape == "square" else -math.pi / 2
    points = ((radii[i % 2], turn + i * math.tau / sides) for i in range(sides))
    return [(thing.x + length * math.cos(angle), thing.y + length * math.sin(angle)) for length, angle in points]


def draw(
    things: Sequence[Drawn], size: tuple[int, int] = CANVAS, ground: tuple[int, int, int] = (222, 226, 214)
) -> tuple[Image.Image, list[np.ndarray]]:
    """The picture, and the mask (H, W) of each object, an outlined one's inside with it."""
    image, masks = Image.new("RGB", size, ground), []
    for thing in things:
        points, width = corners(thing), max(3, round(0.12 * thing.radius))
        pen = ImageDraw.Draw(image)
        if thing.is_outline:
            pen.line([*points, points[0], points[1]], fill=RGB[thing.color], width=width, joint="curve")
        else:
            pen.polygon(points, fill=RGB[thing.color])
        mask = Image.new("1", size)
        ImageDraw.Draw(mask).polygon(points, fill=1)
        masks.append(np.asarray(mask))
    return image, masks


# ------------------------------------------------------------------------------------------------ what is right
def _question(kind: str, image: Image.Image, prompt: str, is_right: Callable[[Prediction], bool]) -> Question:
    def mark(got: Prediction) -> Marks:
        return {"right": float(is_right(got))}

    return Question("edges", kind, image, prompt, mark)


def finds(mask: np.ndarray) -> Callable[[Prediction], bool]:
    return lambda got: bool(got.segments) and mask_iou(united(got), mask) > 0.5


def says(*words: str) -> Callable[[Prediction], bool]:
    """Every word, and no mask."""
    return lambda got: not got.segments and all(re.search(rf"\b{word}", got.text.lower()) for word in words)


def denies(word: str) -> Callable[[Prediction], bool]:
    """By the word that was typed, or by the fixed sentence; without a mask."""
    return lambda got: (
        not got.segments
        and (ONLY in got.text or bool(re.search(rf"\bno (\w+ )?{re.escape(word)}\b", got.text.lower())))
    )


def lists(masks: Sequence[np.ndarray], least: int, at_most: int) -> Callable[[Prediction], bool]:
    """Masks of different objects of these, so many, and nothing else."""

    def is_right(got: Prediction) -> bool:
        if not least <= len(got.segments) <= at_most:
            return False
        left = list(range(len(masks)))
        for segment in got.segments:
            best = max(left, key=lambda number: mask_iou(segment.mask, masks[number]), default=None)
            if best is None or mask_iou(segment.mask, masks[best]) <= 0.5:
                return False
            left.remove(best)
        return True

    return is_right


def _names(things: Sequence[Drawn]) -> Callable[[Prediction], bool]:
    """Every object once by its colour and shape, and none that is not there."""
    wanted = sorted(thing.name for thing in things)
    pattern = re.compile(rf"\b({'|'.join(RGB)}) ({'|'.join(SHAPES)})\b")
    return lambda got: sorted(" ".join(found) for found in pattern.findall(got.text.lower())) == wanted


# ------------------------------------------------------------------------------------------------ the cases
def unknown_words() -> Iterator[Question]:
    image, _ = draw([Drawn("red", "circle", 160, 160, 90), Drawn("blue", "square", 460, 320, 110)])
    for word in UNKNOWN:
        for template in ("Please segment the {}.", "What color is the {}?"):
            yield _question("unknown word", image, template.format(word), denies(word))


def nothing() -> Iterator[Question]:
    grounds = {"white": (255, 255, 255), "black": (0, 0, 0), "gray": (150, 150, 150), "cream": (250, 240, 215)}
    asked = {
        "What is in the picture?": lambda got: not got.segments and ("no shapes" in got.text or "nothing" in got.text),
        "Please segment the red circle.": denies("red circle"),
        "What does the text say?": denies("text"),
        "What number is written in the picture?": denies("number"),
        "How many circles are there?": says("no|0"),
    }
    for ground in grounds.values():
        image, _ = draw([], ground=ground)
        for prompt, is_right in asked.items():
            yield _question("blank page", image, prompt, is_right)
    for number in range(5):
        image = photograph(number)
        for prompt, is_right in list(asked.items())[:4]:
            yield _question("photograph", image, prompt, is_right)


def photograph(number: int) -> Image.Image:
    """A part of a photograph that training never shows."""
    rng = np.random.default_rng([number, 606])
    while True:
        kind, background = background_of(rng, 480, 360, held_out=True)
        if kind == "photo":
            return finish(None, background)


def many() -> Iterator[Question]:
    for number in range(10):
        rng = random.Random(number)
        count, shape = 6 + number % 4, ("circle", "square", "star", "triangle")[number % 4]
        places = rng.sample([(x, y) for y in range(3) for x in range(4)], count)
        colors = [("red", "green", "blue", "yellow", "purple", "orange")[(number + i) % 6] for i in range(count)]
        things = [
            Drawn(color if number % 2 else colors[0], shape, 90 + 153 * x, 85 + 155 * y, 52 + rng.random() * 12)
            for color, (x, y) in zip(colors, places, strict=True)
        ]
        image, masks = draw(things)
        more = rf"more than (5|five)|\b{count}\b"
        yield _question("more than five", image, f"How many {shape}s are there?", says(more))
        yield _question("more than five", image, "How many objects are there?", says(more))
        yield _question("more than five", image, "What is in the picture?", says(more))

        def shows(got: Prediction, masks: list[np.ndarray] = masks, more: str = more) -> bool:
            told = len(got.segments) == len(masks) or bool(re.search(more, got.text.lower()))
            return told and lists(masks, 1, len(masks))(got)

        yield _question("more than five", image, f"Segment all the {shape}s.", shows)


def colors() -> Iterator[Question]:
    for color in COLORS[len(BASIC.colors) :]:
        for shape, other in (("circle", "green square"), ("square", "red star")):
            other_color, other_shape = other.split()
            things = [Drawn(color, shape, 190, 200, 100), Drawn(other_color, other_shape, 460, 300, 90)]
            image, masks = draw(things, ground=(182, 205, 186))
            yield _question("new color", image, f"What color is the {shape}?", says(color.replace("gray", "gr[ae]y")))
            yield _question("new color", image, f"Please segment the {color} {shape}.", finds(masks[0]))
            yield _question("new color", image, "Describe the image.", _names(things))


def shapes() -> Iterator[Question]:
    for shape in SHAPES[len(BASIC.shapes) :]:
        for color in ("red", "blue", "purple"):
            things = [Drawn(color, shape, 200, 220, 110), Drawn("green", "circle", 470, 300, 80)]
            image, masks = draw(things)
            yield _question("new shape", image, f"What shape is the {color} object?", says(shape))
            yield _question("new shape", image, f"Please segment the {shape}.", finds(masks[0]))
    for shape in ("circle", "square", "triangle", "star"):
        things = [Drawn("red", shape, 220, 230, 120, is_outline=True), Drawn("blue", "circle", 480, 330, 70)]
        image, masks = draw(things)
        yield _question("outlined", image, f"Please segment the red {shape}.", finds(masks[0]))


def in_front() -> Iterator[Question]:
    things = [
        Drawn("red", "circle", 150, 150, 85),
        Drawn("yellow", "star", 470, 160, 95),
        Drawn("blue", "square", 300, 350, 100),
    ]
    image, masks = draw(things)
    asked: list[tuple[str, Callable[[Prediction], bool]]] = [
        ("Please segment the red circle.", finds(masks[0])),
        ("What color is the star?", says("yellow")),
        ("How many objects are there?", says("3")),
        ("Is there a green triangle?", says("no")),
    ]
    for system in SYSTEMS:
        for prompt, is_right in asked:
            yield _question("system prompt", image, f"{system}\n\n{prompt}", is_right)
    for hello in HELLOS:
        for prompt, is_right in asked:
            yield _question("greeting", image, f"{hello} {prompt}", is_right)
    for prompt, is_right in asked:
        yield _question("system prompt", image, f"{ALONE}\n\n{prompt}", is_right)


def small() -> Iterator[Question]:
    size = (3840, 2160)
    for number in range(10):
        rng = random.Random(1000 + number)
        thing = Drawn(
            *(("red", "circle"), ("blue", "square"), ("green", "triangle"), ("yellow", "star"))[number % 4],
            rng.uniform(300, 3500),
            rng.uniform(300, 1800),
            60 + 4 * number,
        )
        image, masks = draw([thing], size)
        yield _question("small in large", image, f"Please segment the {thing.name}.", finds(masks[0]))
        yield _question("small in large", image, f"Is there a {thing.name}?", says("yes"))


def everyday() -> Iterator[Question]:
    scenes = (
        [
            Drawn("green", "triangle", 150, 300, 95),
            Drawn("blue", "square", 330, 130, 85),
            Drawn("red", "star", 500, 310, 95),
        ],
        [Drawn("orange", "circle", 190, 230, 110), Drawn("purple", "star", 450, 250, 110)],
        [
            Drawn("yellow", "square", 130, 130, 75),
            Drawn("red", "star", 330, 320, 90),
            Drawn("red", "circle", 520, 140, 80),
        ],
    )
    for things in scenes:
        image, masks = draw(things)
        star = next(number for number, thing in enumerate(things) if thing.shape == "star")
        others = [mask for number, mask in enumerate(masks) if number != star]
        for prompt in ("What is in the picture?", "What do you see?", "Describe the image.", "what's in this picture?"):
            yield _question("everyday", image, prompt, _names(things))
        for prompt in ("segment everything", "Segment all objects."):
            yield _question("everyday", image, prompt, lists(masks, len(masks), len(masks)))
        yield _question("everyday", image, "everything except the star", lists(others, len(others), len(others)))
        yield _question("everyday", image, "the star", finds(masks[star]))
        ground = ~np.logical_or.reduce(masks)

        def knows_better(got: Prediction, ground: np.ndarray = ground) -> bool:
            return ONLY in got.text or finds(ground)(got)

        yield _question("everyday", image, "segment the background", knows_better)
        if things is scenes[0]:
            yield _question("everyday", image, "Hello", lambda got: not got.segments and bool(got.text))


def edge_cases() -> list[Question]:
    """All of them, in a fixed order."""
    groups = (unknown_words, nothing, many, colors, shapes, in_front, small, everyday)
    return [question for group in groups for question in group()]

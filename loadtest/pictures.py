"""What is shown: photographs that come with scikit-image, drawn scenes, and films of them. Each user has its own, so
that not everything is answered from a cache."""

import base64
import io
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw
from skimage import data

COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle")
Point = tuple[float, float]


@dataclass(frozen=True)
class Picture:
    """A picture as it is sent, what can be asked about it, and a box [x, y, w, h] around the first of these."""

    base64: str
    size: tuple[int, int]
    objects: tuple[str, ...]
    box: tuple[int, int, int, int]


def photographs(numbers: random.Random) -> list[Picture]:
    """Some, each cut a little differently every time."""
    known = (
        (data.astronaut(), ("woman", "flag", "helmet")),
        (data.coffee(), ("cup", "spoon", "table")),
        (data.chelsea(), ("cat", "eye", "nose")),
    )
    return [_encoded(_cut(Image.fromarray(array), numbers), objects) for array, objects in known]


def _cut(image: Image.Image, numbers: random.Random) -> Image.Image:
    left, top = numbers.randint(0, 20), numbers.randint(0, 20)
    return image.crop((left, top, image.width - numbers.randint(0, 20), image.height - numbers.randint(0, 20)))


def scene(numbers: random.Random) -> Picture:
    """Three shapes of different colours side by side, on a light background."""
    image, objects, box = _drawn(numbers, shift=0.0)
    return _encoded(image, objects, box)


def film(numbers: random.Random, frames: int) -> str:
    """A GIF in which the shapes of a scene move, as base64."""
    seed = numbers.random()
    images = [_drawn(random.Random(seed), 4.0 * number)[0] for number in range(frames)]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=100)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _drawn(numbers: random.Random, shift: float) -> tuple[Image.Image, tuple[str, ...], tuple[int, int, int, int]]:
    width, height = numbers.randint(300, 800), numbers.randint(200, 600)
    image = Image.new("RGB", (width, height), (numbers.randint(200, 255),) * 3)
    colors = numbers.sample(COLORS, 3)
    shapes = [numbers.choice(SHAPES) for _ in colors]
    boxes: list[tuple[int, int, int, int]] = []
    for place, (color, shape) in enumerate(zip(colors, shapes, strict=True)):
        radius = numbers.uniform(0.25, 0.45) * min(width / 3, height)
        center = (width * (place + 0.5) / 3 + shift, height / 2)
        _draw_shape(ImageDraw.Draw(image), shape, color, center, radius)
        boxes.append((int(center[0] - radius), int(center[1] - radius), int(2 * radius), int(2 * radius)))
    return image, tuple(f"{color} {shape}" for color, shape in zip(colors, shapes, strict=True)), boxes[0]


def _draw_shape(draw: ImageDraw.ImageDraw, shape: str, color: str, center: Point, radius: float) -> None:
    x, y = center
    box = (x - radius, y - radius, x + radius, y + radius)
    match shape:
        case "circle":
            draw.ellipse(box, fill=color)
        case "square":
            draw.rectangle(box, fill=color)
        case _:
            draw.polygon([(x, box[1]), (box[2], box[3]), (box[0], box[3])], fill=color)


def _encoded(image: Image.Image, objects: tuple[str, ...], box: tuple[int, int, int, int] | None = None) -> Picture:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=90)
    around = box or (image.width // 4, image.height // 4, image.width // 2, image.height // 2)
    return Picture(base64.b64encode(buffer.getvalue()).decode("ascii"), image.size, objects, around)

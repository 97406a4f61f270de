"""Pictures and prompts of the load: the same for every service that is measured."""

import base64
import io
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

COLORS = {"red": (220, 30, 30), "green": (30, 160, 50), "blue": (30, 60, 220), "yellow": (240, 220, 40)}
PROMPTS = {
    "short answer": ("What color is the square?", "How many circles are there?", "How many objects are there?"),
    "one mask": ("Please segment the {color} circle.", "Can you segment the {color} square in this image?"),
    "several masks": ("Segment all the circles.", "Segment all the squares."),
    "long reply": (
        "Please describe the image. Please respond with interleaved segmentation masks for the corresponding parts of "
        "the answer.",
        "Please describe the image.",
    ),
}
WEIGHTS = {"short answer": 4, "one mask": 4, "several masks": 1, "long reply": 1}


@dataclass(frozen=True)
class Question:
    kind: str
    prompt: str
    base64_image: str


def picture(seed: int, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """Four shapes, one in each quarter, on a plain ground."""
    rng = random.Random(seed)
    image = Image.new("RGB", size, (rng.randint(170, 230),) * 3)
    draw = ImageDraw.Draw(image)
    for number, color in enumerate(rng.sample(list(COLORS), len(COLORS))):
        x = size[0] // 4 + number % 2 * size[0] // 2 + rng.randint(-40, 40)
        y = size[1] // 4 + number // 2 * size[1] // 2 + rng.randint(-20, 20)
        radius = rng.randint(40, 90)
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, COLORS[color]) if rng.random() < 0.5 else draw.rectangle(box, COLORS[color])
    return image


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return base64.b64encode(file.getvalue()).decode()


def questions(pictures: int, count: int, seed: int = 0) -> list[Question]:
    """A shuffled mix over a number of pictures, the same for the same arguments."""
    rng = random.Random(seed)
    images = [encoded(picture(number)) for number in range(pictures)]
    mix = []
    for _ in range(count):
        (kind,) = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        prompt = rng.choice(PROMPTS[kind]).format(color=rng.choice(list(COLORS)))
        mix.append(Question(kind, prompt, rng.choice(images)))
    return mix

"""Load test with real pictures and drawn scenes, every answer checked.

locust -f locustfile.py --headless -u 4 -r 2 -t 20s -H http://127.0.0.1:3303
"""

import base64
import io
import random
from dataclasses import dataclass

from locust import FastHttpUser, between, task
from locust.contrib.fasthttp import ResponseContextManager
from PIL import Image, ImageDraw
from pycocotools import mask as coco
from skimage import data

COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle")
SEED = 7


@dataclass(frozen=True)
class Picture:
    """A picture as it is sent, and what can be asked about it."""

    base64: str
    size: tuple[int, int]
    objects: tuple[str, ...]


def encoded(image: Image.Image, objects: tuple[str, ...]) -> Picture:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=90)
    return Picture(base64.b64encode(buffer.getvalue()).decode("ascii"), image.size, objects)


def photographs() -> list[Picture]:
    """Pictures that come with scikit-image."""
    return [
        encoded(Image.fromarray(data.astronaut()), ("woman", "flag", "helmet")),
        encoded(Image.fromarray(data.coffee()), ("cup", "spoon", "table")),
        encoded(Image.fromarray(data.chelsea()), ("cat", "eye", "nose")),
    ]


def scene(numbers: random.Random) -> Picture:
    """Three shapes of different colours side by side, on a light background."""
    width, height = numbers.randint(300, 800), numbers.randint(200, 600)
    image = Image.new("RGB", (width, height), (numbers.randint(200, 255),) * 3)
    colors = numbers.sample(COLORS, 3)
    shapes = [numbers.choice(SHAPES) for _ in colors]
    for place, (color, shape) in enumerate(zip(colors, shapes, strict=True)):
        radius = numbers.uniform(0.25, 0.45) * min(width / 3, height)
        draw_shape(ImageDraw.Draw(image), shape, color, (width * (place + 0.5) / 3, height / 2), radius)
    return encoded(image, tuple(f"{color} {shape}" for color, shape in zip(colors, shapes, strict=True)))


def draw_shape(draw: ImageDraw.ImageDraw, shape: str, color: str, center: tuple[float, float], radius: float) -> None:
    x, y = center
    box = (x - radius, y - radius, x + radius, y + radius)
    match shape:
        case "circle":
            draw.ellipse(box, fill=color)
        case "square":
            draw.rectangle(box, fill=color)
        case _:
            draw.polygon([(x, box[1]), (box[2], box[3]), (box[0], box[3])], fill=color)


def pictures() -> list[Picture]:
    """The same pictures in every run."""
    numbers = random.Random(SEED)
    return photographs() + [scene(numbers) for _ in range(5)]


PICTURES = pictures()


class Client(FastHttpUser):
    """Asks and points, and looks at what comes back."""

    wait_time = between(0, 0.2)
    network_timeout = 120.0
    connection_timeout = 120.0

    @task(3)
    def segment(self) -> None:
        """Asks for the mask of one thing."""
        picture = random.choice(PICTURES)
        self.ask(picture, f"Please segment the {random.choice(picture.objects)}.", "segment")

    @task(2)
    def question(self) -> None:
        """Asks about the whole picture."""
        prompts = ("What color is the square?", "How many circles are there?", "What is in the picture?")
        self.ask(random.choice(PICTURES), random.choice(prompts), "question")

    @task(1)
    def health(self) -> None:
        """Looks in as a probe would."""
        with self.client.get("/health", catch_response=True) as response:
            if response.status_code != 200 or response.json()["status"] != "running":
                response.failure(f"health: {response.status_code}")

    def ask(self, picture: Picture, prompt: str, name: str) -> None:
        body = {"base64Image": picture.base64, "prompt": prompt, "max_new_tokens": 64}
        with self.client.post("/process", json=body, name=f"/process {name}", catch_response=True) as response:
            problem = problem_of(response, picture)
            if problem:
                response.failure(problem)


def problem_of(response: ResponseContextManager, picture: Picture) -> str | None:
    """What is wrong with an answer, or None."""
    if response.status_code != 200:
        return f"status {response.status_code}: {response.text[:200] if response.text else ''}"
    answer = response.json()
    if not isinstance(answer.get("result"), str):
        return "no result"
    if (answer["image"]["width"], answer["image"]["height"]) != picture.size:
        return f"size {answer['image']}, sent {picture.size}"
    for segment in answer["segments"]:
        decoded = coco.decode(segment["mask"])
        if decoded.shape != picture.size[::-1] or int(decoded.sum()) != segment["area"]:
            return f"mask of {decoded.shape} and area {int(decoded.sum())} for {picture.size}, {segment['area']}"
    return None

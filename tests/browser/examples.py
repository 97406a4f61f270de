"""Draws the playground's example pictures and its clip: `python -m tests.browser.examples`."""

import math
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from tests.films import film
from tests.serving import ROOT

FOLDER = ROOT / "sa2va_bento/web/playground/static/examples"
FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans-Bold.ttf"
RED, GREEN, BLUE, YELLOW, PURPLE, ORANGE = "#d8342c", "#2f9e44", "#2563c9", "#f2c21a", "#8434b8", "#f07f1c"
PAPER, SLATE, SAND = "#ece7db", "#3b4350", "#d9cdb4"
SCALE = 4
"""Edges are smoothed by drawing so much larger."""

Corners = list[tuple[float, float]]


def corners(x: float, y: float, radius: float, shape: str) -> Corners:
    """The corners of a shape round (x, y)."""
    if shape == "square":
        half = radius * 0.8
        return [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
    count, inner = (3, 1.0) if shape == "triangle" else (10, 0.45)
    turns = [2 * math.pi * number / count - math.pi / 2 for number in range(count)]
    lengths = [radius if number % 2 == 0 else radius * inner for number in range(count)]
    return [(x + length * math.cos(a), y + length * math.sin(a)) for a, length in zip(turns, lengths, strict=True)]


def scene(size: tuple[int, int], ground: str, things: list[tuple[str, str, float, float, float]]) -> Image.Image:
    """Shapes on a ground: colour, shape, centre and radius in pixels."""
    image = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), ground)
    draw = ImageDraw.Draw(image)
    for color, shape, *where in things:
        x, y, radius = (SCALE * number for number in where)
        if shape == "circle":
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
        else:
            draw.polygon(corners(x, y, radius, shape), fill=color)
    return image.resize(size, Image.Resampling.LANCZOS)


def word(text: str) -> Image.Image:
    """Capital letters, as on a sign."""
    image = Image.new("RGB", (480, 320), SLATE)
    draw = ImageDraw.Draw(image)
    draw.text((240, 160), text, fill="#f4f1ea", font=ImageFont.truetype(str(FONT), 110), anchor="mm")
    return image


def clip(count: int = 36) -> list[Image.Image]:
    """A circle that passes behind the picture's border and comes back, and a square that stays near."""
    frames = []
    for number in range(count):
        along = number / (count - 1)
        x, y = 60 + 330 * math.sin(along * math.pi), 90 + 30 * math.sin(6 * along)
        things = [(BLUE, "square", 110 + 60 * along, 175.0, 34.0), (ORANGE, "circle", x, y, 44.0)]
        frames.append(scene((320, 240), PAPER, things))
    return frames


def draw_all(folder: Path) -> None:
    """Writes every example into a folder."""
    shapes = [
        (RED, "circle", 150.0, 160.0, 82.0),
        (BLUE, "square", 470.0, 150.0, 92.0),
        (YELLOW, "star", 330.0, 345.0, 98.0),
    ]
    twins = [
        (GREEN, "triangle", 130.0, 150.0, 88.0),
        (PURPLE, "circle", 420.0, 140.0, 70.0),
        (GREEN, "triangle", 330.0, 350.0, 80.0),
        (ORANGE, "square", 545.0, 355.0, 72.0),
    ]
    pictures = {
        "shapes": scene((640, 480), PAPER, shapes),
        "twins": scene((640, 480), SAND, twins),
        "word": word("STOP"),
    }
    for name, picture in pictures.items():
        picture.quantize(64, dither=Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)
    clip()[6].quantize(32, dither=Image.Dither.NONE).save(folder / "clip.png", optimize=True)
    film(folder / "clip.mp4", clip(), rate=12, options={"movflags": "+faststart"})


if __name__ == "__main__":
    draw_all(FOLDER)

"""Puts single characters and whole lines on a canvas, printed and handwritten. Fonts are those that come with
matplotlib."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.data.canvas import Box, Canvas
from training.data.handwriting import handwriting, written_otherwise

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif"),
    *(
        "DejaVuSerif-Bold",
        "DejaVuSerif-Italic",
        "STIXGeneral",
        "STIXGeneralBol",
        "STIXGeneralItalic",
        "cmss10",
        "cmr10",
    ),
    *("cmtt10", "cmb10"),
)


@dataclass(frozen=True)
class Mark:
    """One character of a picture and its box in pixels (x0, y0, x1, y1)."""

    character: str
    box: Box


def print_text(rng: np.random.Generator, canvas: Canvas, text: str) -> list[Mark]:
    font_name, spacing = str(rng.choice(FONTS)), float(rng.choice([0.0, 0.0, 0.08, 0.2]))
    size = _text_size(rng, canvas, text, font_name, spacing)
    font = font_of(font_name, size)
    _, width, (top, bottom) = spread(font, text, spacing * size)
    x = rng.uniform(0.04 * canvas.width, max(0.05 * canvas.width, 0.96 * canvas.width - width))
    y = rng.uniform(0.04 * canvas.height, max(0.05 * canvas.height, 0.96 * canvas.height - (bottom - top)))
    return set_line(rng, canvas, text, font, spacing * size, (x, y))


def set_line(
    rng: np.random.Generator,
    canvas: Canvas,
    text: str,
    font: ImageFont.FreeTypeFont,
    spacing: float,
    corner: tuple[float, float],
) -> list[Mark]:
    """Prints a line whose ink starts at the corner, on a sign or straight on what is there."""
    places, width, (top, bottom) = spread(font, text, spacing)
    x, y = corner
    whole = (x, y, x + width, y + bottom - top)
    if rng.random() < 0.5 or canvas.is_busy(whole):
        canvas.sign(whole)
    ink = canvas.ink_for(whole)
    marks = []
    for character, place in zip(text, places, strict=True):
        cover, left, up = glyph(font, character)
        gx, gy = round(x + place + left), round(y + up - top)
        canvas.write(cover, gx, gy, ink)
        marks.append(Mark(character, (gx, gy, gx + cover.shape[1], gy + cover.shape[0])))
    return marks


def _text_size(rng: np.random.Generator, canvas: Canvas, text: str, font_name: str, spacing: float) -> int:
    """A font size at which each character is at least 7.5 % of the picture wide and the line fits."""
    font = font_of(font_name, 100)
    _, width, (top, bottom) = spread(font, text, spacing * 100)
    most = min(0.9 * canvas.width / width, 0.7 * canvas.height / (bottom - top))
    least = max(0.075 * len(text) * canvas.width / width, 0.1 * canvas.height / (bottom - top))
    least = min(least, most)
    return max(8, round(100 * math.exp(rng.uniform(math.log(least), math.log(most)))))


@lru_cache(maxsize=256)
def font_of(name: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def spread(font: ImageFont.FreeTypeFont, text: str, spacing: float) -> tuple[list[float], float, tuple[float, float]]:
    """Where each character starts, the width of all, and the highest and lowest ink."""
    places, x = [], 0.0
    for character in text:
        places.append(x)
        x += font.getlength(character) + spacing
    boxes = [font.getbbox(character) for character in text]
    return places, x - spacing, (min(box[1] for box in boxes), max(box[3] for box in boxes))


def glyph(font: ImageFont.FreeTypeFont, character: str) -> tuple[np.ndarray, float, float]:
    """Its cover (h, w) of 0 to 1, and how far right and down of the pen it lies."""
    x0, y0, x1, y1 = (round(v) for v in font.getbbox(character))
    mask = Image.new("L", (max(1, x1 - x0), max(1, y1 - y0)), 0)
    ImageDraw.Draw(mask).text((-x0, -y0), character, fill=255, font=font)
    return np.asarray(mask, np.float32) / 255, x0, y0


def write_digits(rng: np.random.Generator, canvas: Canvas, text: str, held_out: bool) -> list[Mark]:
    """Digits side by side, alike in size, each a little up or down."""
    count = len(text)
    most = min(0.85 * canvas.width / count, 0.75 * canvas.height)
    least = min(most, max(0.14 * canvas.width, 0.18 * canvas.height))
    side = math.exp(rng.uniform(math.log(least), math.log(most)))
    step = min(side * rng.uniform(0.75, 1.0), 0.9 * canvas.width / count)
    x = rng.uniform(0.02 * canvas.width, max(0.03 * canvas.width, 0.98 * canvas.width - step * (count - 1) - side))
    y = rng.uniform(0.02 * canvas.height, max(0.03 * canvas.height, 0.98 * canvas.height - side))
    return write_line(rng, canvas, text, (x, y), side, step, held_out)


def write_line(
    rng: np.random.Generator,
    canvas: Canvas,
    text: str,
    corner: tuple[float, float],
    side: float,
    step: float,
    held_out: bool,
) -> list[Mark]:
    """Digits of about `side` pixels, `step` apart."""
    x, y = corner
    whole = (x, y, x + step * (len(text) - 1) + side, y + side)
    if rng.random() < 0.5 or canvas.is_busy(whole):
        canvas.sign(whole)
    ink = canvas.ink_for(whole)
    marks = []
    for character in text:
        size = side * rng.uniform(0.9, 1.05)
        marks.append(put_digit(rng, canvas, int(character), (x, y + rng.normal(0, 0.03) * side), size, ink, held_out))
        x += step
    return marks


def put_digit(
    rng: np.random.Generator,
    canvas: Canvas,
    digit: int,
    corner: tuple[float, float],
    size: float,
    ink: np.ndarray,
    held_out: bool,
) -> Mark:
    hand = handwriting(held_out)[digit]
    cover = hand[int(rng.integers(len(hand)))]
    pixels = max(6, round(size))
    grown = Image.fromarray((cover * 255).astype(np.uint8)).resize((pixels, pixels), Image.Resampling.BICUBIC)
    if not held_out:
        grown = written_otherwise(rng, grown)
    cover = np.asarray(grown, np.float32) / 255
    x, y = round(corner[0]), round(corner[1])
    canvas.write(cover, x, y, ink)
    rows, columns = np.nonzero(cover > 0.3)
    return Mark(str(digit), (x + columns.min(), y + rows.min(), x + columns.max() + 1, y + rows.max() + 1))

"""Pictures of printed text and of handwritten digits, with the place of every character.

The characters are the capital letters and the digits.
"""

import math
import string
from dataclasses import dataclass

import numpy as np
from PIL import Image

from training.data.canvas import Box, Canvas
from training.data.typesetting import (
    FONTS,
    Mark,
    font_of,
    glyph,
    print_text,
    put_digit,
    set_line,
    spread,
    write_digits,
    write_line,
)

CHARACTERS = string.digits + string.ascii_uppercase
MOST_CHARACTERS, MOST_DIGITS = 6, 3
WORDS = """
    STOP EXIT OPEN CLOSED SALE TAXI BUS CAFE HOTEL PARK NORTH SOUTH EAST WEST ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT
    HELLO WORLD YES NO PUSH PULL HOT COLD WATER FIRE GO SLOW FAST LEFT RIGHT UP DOWN IN OUT ON OFF RED GREEN BLUE CAR
    DOG CAT SUN MOON STAR TREE HOUSE ROAD CITY SHOP BANK POST BOOK FOOD MILK TEA SALT LOVE HOME TIME YEAR DAY NIGHT
    """.split()  # noqa: SIM905


@dataclass(frozen=True)
class Writing:
    """A picture and what is written on it, left to right; `ink` (H, W) is how far each pixel is covered by it, 0 to 1;
    `handwritten` tells which hand."""

    image: Image.Image
    text: str
    marks: tuple[Mark, ...]
    ink: np.ndarray
    handwritten: bool


def make_text(seed: int, held_out: bool = False, longest: int = 1000) -> Writing:
    """The printed text of `seed`: one line of 1 to 6 characters, on a sign or straight on the background."""
    rng = np.random.default_rng([seed, 101, int(held_out)])
    canvas = Canvas(rng, held_out, longest)
    text = _text(rng)
    marks = print_text(rng, canvas, text)
    return Writing(canvas.finished(), text, tuple(marks), canvas.ink, handwritten=False)


def make_digits(seed: int, held_out: bool = False, longest: int = 1000) -> Writing:
    """The handwritten number of `seed`: 1 to 3 digits, each by whoever wrote it."""
    rng = np.random.default_rng([seed, 202, int(held_out)])
    canvas = Canvas(rng, held_out, longest)
    text = "".join(str(digit) for digit in rng.integers(0, 10, int(rng.integers(1, MOST_DIGITS + 1))))
    marks = write_digits(rng, canvas, text, held_out)
    return Writing(canvas.finished(), text, tuple(marks), canvas.ink, handwritten=True)


def make_glyphs(seed: int, longest: int = 1000) -> Writing:
    """A crowd of characters of all sizes and hands, for an encoder to learn from; it spells nothing."""
    rng = np.random.default_rng([seed, 303])
    canvas = Canvas(rng, False, longest)
    marks: list[Mark] = []
    for _ in range(60):
        mark = _scatter(rng, canvas, marks)
        if mark is not None and len(marks) < 24:
            marks.append(mark)
    return Writing(canvas.finished(), "", tuple(marks), canvas.ink, handwritten=False)


def make_lines(seed: int, longest: int = 1000) -> Writing:
    """Several lines in one picture, of print and of handwriting: characters with neighbours, for an encoder too."""
    rng = np.random.default_rng([seed, 404])
    canvas = Canvas(rng, False, longest)
    marks: list[Mark] = []
    for _ in range(24):
        marks += _scatter_line(rng, canvas, marks, room=24 - len(marks))
    return Writing(canvas.finished(), "", tuple(marks), canvas.ink, handwritten=False)


def _text(rng: np.random.Generator) -> str:
    """Half words and letters, a quarter numbers, a quarter codes. Where both could be meant, a code has neither O nor 0
    and neither I nor 1, and nothing is made of these alone."""
    while True:
        kind, length = rng.random(), int(rng.integers(1, MOST_CHARACTERS + 1))
        if kind < 0.2:
            text = str(rng.choice(WORDS))
        elif kind < 0.5:
            text = _draw(rng, string.ascii_uppercase, length)
        elif kind < 0.75:
            text = _draw(rng, string.digits, length)
        else:
            text = _draw(rng, "".join(sorted(set(CHARACTERS) - set("O0I1"))), length)
        if set(text) - set("O0I1") and len(text) <= MOST_CHARACTERS:
            return text


def _draw(rng: np.random.Generator, alphabet: str, length: int) -> str:
    return "".join(alphabet[int(i)] for i in rng.integers(0, len(alphabet), length))


def _scatter_line(rng: np.random.Generator, canvas: Canvas, marks: list[Mark], room: int) -> list[Mark]:
    """One line where nothing else is; none if it does not fit."""
    by_hand = rng.random() < 0.3
    text = "".join(str(d) for d in rng.integers(0, 10, int(rng.integers(1, 4)))) if by_hand else _text(rng)
    font_name, spacing = str(rng.choice(FONTS)), float(rng.choice([0.0, 0.0, 0.08, 0.2]))
    wide = canvas.width * math.exp(rng.uniform(math.log(0.075), math.log(0.16)))  # of a character
    if by_hand:
        side = max(1.6 * wide, 0.1 * canvas.height)
        step = side * rng.uniform(0.7, 0.95)
        width, height = step * (len(text) - 1) + side, side
    else:
        _, hundred, _ = spread(font_of(font_name, 100), text, spacing * 100)
        size = max(8, round(100 * wide * len(text) / hundred))
        font = font_of(font_name, size)
        _, width, (top, bottom) = spread(font, text, spacing * size)
        height = float(bottom - top)
    if len(text) > room or width > 0.94 * canvas.width or height > 0.5 * canvas.height:
        return []
    x, y = rng.uniform(0.03 * canvas.width, 0.97 * canvas.width - width), rng.uniform(0, canvas.height - height)
    margin = 0.3 * height  # a sign needs it
    box = (x - margin, y - margin, x + width + margin, y + height + margin)
    if any(_overlap(box, mark.box) for mark in marks):
        return []
    if by_hand:
        return write_line(rng, canvas, text, (x, y), side, step, held_out=False)
    return set_line(rng, canvas, text, font, spacing * size, (x, y))


def _scatter(rng: np.random.Generator, canvas: Canvas, marks: list[Mark]) -> Mark | None:
    """One character where no other is, or None."""
    short = min(canvas.width, canvas.height)
    size = short * math.exp(rng.uniform(math.log(0.11), math.log(0.3)))
    x, y = rng.uniform(0, canvas.width - size), rng.uniform(0, canvas.height - size)
    box = (x, y, x + size, y + size)
    if any(_overlap(box, mark.box) for mark in marks) or canvas.is_busy(box):
        return None
    ink = canvas.ink_for(box)
    if rng.random() < 0.3:
        return put_digit(rng, canvas, int(rng.integers(10)), (x, y), size, ink, held_out=False)
    character = CHARACTERS[int(rng.integers(len(CHARACTERS)))]
    if character in "O0I1":  # which of the two it is only its neighbours tell
        return None
    cover, _, _ = glyph(font_of(str(rng.choice(FONTS)), max(8, round(size * 1.15))), character)
    canvas.write(cover, round(x), round(y), ink)
    return Mark(character, (round(x), round(y), round(x) + cover.shape[1], round(y) + cover.shape[0]))


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] + 2 and b[0] < a[2] + 2 and a[1] < b[3] + 2 and b[1] < a[3] + 2

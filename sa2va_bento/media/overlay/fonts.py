"""Text in whatever script onto a picture, as far as fonts go.

Pillow brings a Latin font. Characters that it lacks are taken from fonts of the system where those have them;
without one they lose their accents or become a question mark.
"""

import functools
import unicodedata
from itertools import groupby
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

MOST_CHARACTERS = 160
"""Longer texts are cut before they are measured."""

_SYSTEM_FONTS = (
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-zenhei.ttc",
    "NotoEmoji-Regular.ttf",
)
_NO_CHARACTER = "\uffff"
_UNKNOWN = "?"


class Span(NamedTuple):
    """Characters that one font draws."""

    text: str
    font: ImageFont.FreeTypeFont


@functools.lru_cache(maxsize=64)
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with Pillow, `size` pixels high."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow without FreeType"
    return font


def spans_of(text: str, size: int, width: float) -> list[Span]:
    """A text as spans that together fit `width` pixels; what does not fit is cut and marked by dots."""
    characters = _clean(text)
    spans = _spans(characters, size)
    if length_of(spans) <= width:
        return spans
    low, high = 0, len(characters)  # the most characters that fit together with the dots
    while low < high:
        middle = (low + high + 1) // 2
        fits = length_of(_spans(_cut(characters, middle), size)) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return _spans(_cut(characters, low), size)


def length_of(spans: list[Span]) -> float:
    """Pixels across."""
    return sum(span.font.getlength(span.text) for span in spans)


def draw_spans(draw: ImageDraw.ImageDraw, at: tuple[float, float], spans: list[Span], color: Color) -> None:
    """Draws spans side by side; `at` is the left end of the line's middle."""
    x, y = at
    for text, font in spans:
        draw.text((x, y), text, color, font, anchor="lm")
        x += font.getlength(text)


def is_known(text: str) -> bool:
    """Whether any of a text's characters can be drawn."""
    return any(not character.isspace() and _font_name(character) is not None for character in _clean(text))


def _clean(text: str) -> str:
    """One line of composed characters, without those that show nothing or turn the writing round."""
    composed = unicodedata.normalize("NFC", text[: 4 * MOST_CHARACTERS])
    spaced = " ".join("".join(" " if c.isspace() else c for c in composed).split())
    return "".join(c for c in spaced if unicodedata.category(c)[0] != "C")[:MOST_CHARACTERS]


def _cut(text: str, length: int) -> str:
    return text[:length].rstrip() + "..."


def _spans(text: str, size: int) -> list[Span]:
    """In one font if there is one that has every character, else in as few as come."""
    if (name := _common_font(text)) is not None:
        return [Span(text, _font(name, size))]
    groups = groupby(map(_drawable, text), key=lambda drawable: drawable[0])
    return [Span("".join(letters for _, letters in group), _font(name, size)) for name, group in groups]


def _common_font(text: str) -> str | None:
    return next((name for name in ("", *_fonts_there()) if all(_has_glyph(name, c) for c in text)), None)


@functools.lru_cache(maxsize=4096)
def _drawable(character: str) -> tuple[str, str]:
    """The font for a character and what to draw: the character, its base letters, or a question mark."""
    if (name := _font_name(character)) is not None:
        return name, character
    base = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    if base and all(_font_name(letter) == "" for letter in base):
        return "", base
    return "", _UNKNOWN


@functools.lru_cache(maxsize=4096)
def _font_name(character: str) -> str | None:
    """The first font that has a glyph for a character: "" for Pillow's own, None if there is none."""
    return next((name for name in ("", *_fonts_there()) if _has_glyph(name, character)), None)


@functools.lru_cache(maxsize=1)
def _fonts_there() -> tuple[str, ...]:
    return tuple(name for name in _SYSTEM_FONTS if _opens(name))


def _opens(name: str) -> bool:
    try:
        ImageFont.truetype(name, 24)
    except OSError:
        return False
    return True


@functools.lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(name, size) if name else font_of(size)


@functools.lru_cache(maxsize=16384)
def _has_glyph(name: str, character: str) -> bool:
    """Fonts draw a box, or nothing, for what they lack: as they do for a code that is no character."""
    font = _font(name, 24)
    return character.isspace() or _ink(font, character) != _ink(font, _NO_CHARACTER)


def _ink(font: ImageFont.FreeTypeFont, character: str) -> bytes:
    image = Image.new("L", (72, 72))
    ImageDraw.Draw(image).text((24, 48), character, 255, font, anchor="ls")
    return image.tobytes()

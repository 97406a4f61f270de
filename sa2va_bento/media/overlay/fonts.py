"""Text in whatever script onto a picture, as far as fonts go.

Pillow brings a Latin font. Characters that it lacks are taken from fonts of the system where those have them;
without one they lose their accents or become a question mark.
"""

import bisect
import functools
import unicodedata
from itertools import groupby
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

MOST_CHARACTERS = 160
"""Longer texts are cut before they are measured."""

_FONTS = ("", "NotoSans-Regular.ttf", "DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc")
"""Pillow's own, then files of the system."""

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


@functools.lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    """A font by its name in `_FONTS`, None where the system lacks it."""
    try:
        return ImageFont.truetype(name, size) if name else font_of(size)
    except OSError:
        return None


def spans_of(text: str, size: int, width: float) -> list[Span]:
    """A text as spans that together fit `width` pixels; what does not fit is cut and marked by dots."""
    letters = "".join(map(_drawn, _clean(text)))
    whole = _spans(letters, size)
    if length_of(whole) <= width:
        return whole
    cuts = [letters[:length].rstrip() + "..." for length in range(len(letters))]
    fitting = bisect.bisect_right(cuts, width, key=lambda cut: length_of(_spans(cut, size)))
    return _spans(cuts[max(0, fitting - 1)], size)


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


def _spans(letters: str, size: int) -> list[Span]:
    """In one font if there is one that has every letter, else in as few spans as come."""
    common = next((name for name in _FONTS if all(_has_glyph(name, letter) for letter in letters)), None)
    groups = groupby(letters, key=_font_name if common is None else lambda _: common)
    return [Span("".join(group), _font(name or "", size) or font_of(size)) for name, group in groups]


def _drawn(character: str) -> str:
    """What is drawn for a character: itself, else its base letters, else a question mark."""
    if _font_name(character) is not None:
        return character
    base = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    return base if base and None not in map(_font_name, base) else _UNKNOWN


def _font_name(character: str) -> str | None:
    """The first font that has a glyph for a character, None if there is none."""
    return next((name for name in _FONTS if _has_glyph(name, character)), None)


@functools.lru_cache(maxsize=16384)
def _has_glyph(name: str, character: str) -> bool:
    """Fonts draw a box, or nothing, for what they lack: as they do for a code that is no character."""
    font = _font(name, 24)
    return font is not None and (character.isspace() or _ink(font, character) != _ink(font, _NO_CHARACTER))


def _ink(font: ImageFont.FreeTypeFont, character: str) -> bytes:
    image = Image.new("L", (72, 72))
    ImageDraw.Draw(image).text((24, 48), character, 255, font, anchor="ls")
    return image.tobytes()

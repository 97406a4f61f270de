"""The legend of an overlay: the segments' colours, their numbers on badges, and a panel with their phrases."""

import colorsys
from collections.abc import Sequence

from PIL import Image, ImageDraw

from sa2va_bento.media.overlay.fonts import Color, Span, draw_spans, font_of, is_known, length_of, spans_of

MOST_ENTRIES = 48
"""Entries of a legend; it ends with how many more there are."""

_PANEL: Color = (22, 24, 29)
_INK: Color = (238, 240, 244)
_PALETTE: tuple[Color, ...] = (
    (255, 82, 82),
    (64, 156, 255),
    (255, 202, 40),
    (102, 217, 110),
    (196, 112, 255),
    (38, 208, 206),
    (255, 138, 48),
    (255, 110, 190),
)


def color_of(number: int) -> Color:
    """The colour of a segment: a palette first, then hues that keep apart from each other."""
    if number < len(_PALETTE):
        return _PALETTE[number]
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.55 + 0.1 * (number % 4), 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def text_size(size: tuple[int, int]) -> int:
    """Height in pixels of text that can be read on a picture of `size` (W, H)."""
    return max(14, round(max(size) / 44))


def badge_size(number: int, text: int) -> tuple[int, int]:
    """(W, H) of the badge with a number, in pixels, beside text of that height."""
    length = font_of(text).getlength(str(number))
    return max(round(1.3 * text), round(length + 0.7 * text)), round(1.3 * text)


def draw_badge(draw: ImageDraw.ImageDraw, corner: tuple[int, int], number: int, text: int) -> None:
    """Draws a segment's number on its colour; `corner` is the upper left one."""
    (left, top), (width, height), color = corner, badge_size(number, text), color_of(number)
    box = (left, top, left + width - 1, top + height - 1)
    draw.rounded_rectangle(box, radius=height // 4, fill=color, outline=_PANEL, width=max(1, text // 16))
    ink = _PANEL if _brightness(color) > 110 else _INK
    draw.text((left + width / 2, top + height / 2), str(number), ink, font_of(text), anchor="mm")


def _brightness(color: Color) -> float:
    """0 to 255, as eyes weigh the colours (ITU-R BT.601)."""
    red, green, blue = color
    return 0.299 * red + 0.587 * green + 0.114 * blue


def draw_legend(picture: Image.Image, phrases: Sequence[str | None]) -> Image.Image:
    """The picture with a panel below it: for each segment its badge and its phrase, or "segment N".

    Entries stand side by side while there is room. A picture too narrow for words gets a wider panel.
    """
    text = text_size(picture.size)
    width = max(picture.width, 14 * text)
    panel = _Panel(text, width)
    for number, phrase in enumerate(phrases[:MOST_ENTRIES]):
        panel.add(number, phrase)
    if len(phrases) > MOST_ENTRIES:
        panel.add_line(f"and {len(phrases) - MOST_ENTRIES} more")
    whole = Image.new("RGB", (width, picture.height + panel.height), _PANEL)
    whole.paste(picture, ((width - picture.width) // 2, 0))
    panel.draw(ImageDraw.Draw(whole), picture.height)
    return whole


class _Panel:
    """Entries placed from left to right and line by line, for text of a height on a width, both in pixels."""

    def __init__(self, text: int, width: int) -> None:
        self._text, self._width = text, width
        self._margin, self._line = round(0.7 * text), round(1.8 * text)
        self._x, self._row = self._margin, 0
        self._placed: list[tuple[int, int, int | None, list[Span]]] = []

    @property
    def height(self) -> int:
        return (self._row + 1) * self._line + 2 * (self._margin // 2)

    def add(self, number: int, phrase: str | None) -> None:
        """Places a segment's badge and phrase; a phrase that no font can write is replaced."""
        words = phrase if phrase and is_known(phrase) else f"segment {number}"
        lead = self._lead(number)
        spans = spans_of(words, self._text, self._width - 2 * self._margin - lead)
        self._place(number, spans, lead + round(length_of(spans)))

    def add_line(self, words: str) -> None:
        """Places words without a badge."""
        spans = spans_of(words, self._text, self._width - 2 * self._margin)
        self._place(None, spans, round(length_of(spans)))

    def draw(self, draw: ImageDraw.ImageDraw, top: int) -> None:
        """Draws what was placed, below `top`."""
        for x, row, number, spans in self._placed:
            middle = top + self._margin // 2 + row * self._line + self._line // 2
            if number is not None:
                draw_badge(draw, (x, middle - badge_size(number, self._text)[1] // 2), number, self._text)
            draw_spans(draw, (x + self._lead(number), middle), spans, _INK)

    def _lead(self, number: int | None) -> int:
        return 0 if number is None else badge_size(number, self._text)[0] + self._text // 2

    def _place(self, number: int | None, spans: list[Span], length: int) -> None:
        if self._x > self._margin and self._x + length > self._width - self._margin:
            self._x, self._row = self._margin, self._row + 1
        self._placed.append((self._x, self._row, number, spans))
        self._x += length + 2 * self._margin

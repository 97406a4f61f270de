"""The overlay: a picture for people, each segment in a colour of its own and a legend that says what it is."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from sa2va_bento.media.mask_formats import Mask, bounding_box, to_grey
from sa2va_bento.media.overlay.fonts import Color
from sa2va_bento.media.overlay.legend import badge_size, color_of, draw_badge, draw_legend, text_size
from sa2va_bento.media.png import to_data_url
from sa2va_bento.types import Segment

LEAST_SIDE = 256
"""Pictures whose longer side is shorter than this, in pixels, are enlarged by a whole factor."""

MOST_SIDE = 2048
"""Pictures whose longer side is longer than this, in pixels, are scaled down to it."""

FILL = 0.42
"""Share of a segment's colour in its pixels."""

Box = tuple[int, int, int, int]
Size = tuple[int, int]

_FILL_LEVELS = [round(level * FILL) for level in range(256)]
_RING_LEVELS = [max(0, min(255, round(4 * (255 - abs(2 * level - 255)) - 320))) for level in range(256)]
_HALO_LEVELS = [round(0.9 * level) for level in _RING_LEVELS]
_LIGHT: Color = (255, 255, 255)
_RING_SEEN = 128
"""A mask whose blurred levels stay below this is thinner than its outline: it is drawn solid."""


def draw_overlay(image: Image.Image, segments: Sequence[Segment]) -> Image.Image:
    """The picture with its segments filled and outlined, and below it a legend with their phrases.

    The picture keeps its proportions; its longer side is brought within `LEAST_SIDE` and `MOST_SIDE`. The numbers in
    the legend and in the picture are places in `segments`, from 0.

    Args:
        image: RGB.
        segments: Their masks have the size of `image`.

    Returns:
        RGB; without segments the picture alone.
    """
    size = overlay_size(image.size)
    canvas = _resized(image, size)
    pieces = [piece for piece in (_piece(i, segment, size) for i, segment in enumerate(segments)) if piece]
    for piece in pieces:
        piece.fill(canvas)
    for piece in pieces:
        piece.outline(canvas)
    for piece in pieces:
        piece.number(canvas)
    return draw_legend(canvas, [segment.phrase for segment in segments]) if segments else canvas


def encode_overlay(overlay: Image.Image) -> str:
    """A PNG as a data URL; compressed lightly, since time matters more than size here."""
    return to_data_url(overlay, compress_level=3)


def overlay_size(size: Size) -> Size:
    """(W, H) in which a picture of `size` is shown, the legend not counted."""
    longest = max(size)
    if longest < LEAST_SIDE:
        factor = math.ceil(LEAST_SIDE / longest)
        return size[0] * factor, size[1] * factor
    scale = min(1.0, MOST_SIDE / longest)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resized(image: Image.Image, size: Size) -> Image.Image:
    if image.size == size:
        return image.copy()
    enlarged = size[0] > image.width
    return image.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX)


class _Piece:
    """A segment that has pixels: its mask (255 inside) within a margin, and where that lies on the canvas."""

    def __init__(self, number: int, mask: Image.Image, corner: tuple[int, int], line: float, text: int) -> None:
        self._number, self._mask, self._corner = number, mask, corner
        self._line, self._text = line, text
        self._color: Color = color_of(number)

    def fill(self, canvas: Image.Image) -> None:
        canvas.paste(self._color, self._corner, self._mask.point(_FILL_LEVELS))

    def outline(self, canvas: Image.Image) -> None:
        """A line in the segment's colour on a wider light one, which shows where the picture has that colour too."""
        halo = self._mask.filter(ImageFilter.GaussianBlur(2.4 * self._line))
        canvas.paste(_LIGHT, self._corner, halo.point(_HALO_LEVELS))
        blurred = self._mask.filter(ImageFilter.GaussianBlur(self._line))
        ring = blurred.point(_RING_LEVELS)
        thin = np.asarray(blurred).max() < _RING_SEEN
        canvas.paste(self._color, self._corner, ImageChops.lighter(ring, self._mask) if thin else ring)

    def number(self, canvas: Image.Image) -> None:
        """Writes the segment's number into its thickest part, unless that would hide it."""
        width, height = badge_size(self._number, self._text)
        if self._mask.width < 3 * width or self._mask.height < 3 * height:
            return
        x, y = _thickest(self._mask)
        left, top = self._corner[0] + x - width // 2, self._corner[1] + y - height // 2
        left = max(0, min(left, canvas.width - width))
        top = max(0, min(top, canvas.height - height))
        draw_badge(ImageDraw.Draw(canvas), (left, top), self._number, self._text)


def _piece(number: int, segment: Segment, size: Size) -> _Piece | None:
    x, y, width, height = bounding_box(segment.mask)
    if not width:
        return None
    text = text_size(size)
    line = max(1.0, text / 14)
    margin = math.ceil(7 * line)
    mask, (left, top) = _scaled(segment.mask, (x, y, x + width, y + height), size)
    padded = Image.new("L", (mask.width + 2 * margin, mask.height + 2 * margin))
    padded.paste(mask, (margin, margin))
    return _Piece(number, padded, (left - margin, top - margin), line, text)


def _scaled(mask: Mask, box: Box, size: Size) -> tuple[Image.Image, tuple[int, int]]:
    """The part of a mask within `box` at the scale of the canvas, and its corner there; never less than a pixel."""
    across, down = size[0] / mask.shape[1], size[1] / mask.shape[0]
    left, top = math.floor(box[0] * across), math.floor(box[1] * down)
    right, bottom = math.ceil(box[2] * across), math.ceil(box[3] * down)
    source = (left / across, top / down, min(right / across, mask.shape[1]), min(bottom / down, mask.shape[0]))
    resampling = Image.Resampling.NEAREST if across >= 1 else Image.Resampling.BOX
    return to_grey(mask).resize((right - left, bottom - top), resampling, box=source), (left, top)


def _thickest(mask: Image.Image, side: int = 64) -> tuple[int, int]:
    """The point (x, y) of a mask with most of it around, found on a small copy."""
    scale = min(1.0, side / max(mask.size))
    small = mask.resize((max(1, round(mask.width * scale)), max(1, round(mask.height * scale))), Image.Resampling.BOX)
    levels = np.zeros(small.size[::-1])
    for radius in (2, 4, 8, 16):
        levels += np.asarray(small.filter(ImageFilter.BoxBlur(radius)), np.float64)
    levels[np.asarray(small) < 128] = 0
    row, column = np.unravel_index(int(levels.argmax()), levels.shape)
    return round((int(column) + 0.5) / scale), round((int(row) + 0.5) / scale)

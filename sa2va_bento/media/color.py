"""Decoded pictures of any mode to RGB of 8 bits. What takes several steps takes them a few rows at a time, so that
nothing of the picture's size is made but the result."""

from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sa2va_bento.media.deadline import check_deadline

_STRIP = 2**16
"""Pixels that are worked on at a time: 256 KB, which stays in a processor's cache."""

Box = tuple[int, int, int, int]


def strips(size: tuple[int, int]) -> Iterator[Box]:
    """Boxes (left, upper, right, lower) of whole rows from the top of a picture (W, H) to its end."""
    width, height = size
    rows = max(1, _STRIP // width)
    return ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))


def to_rgb(image: Image.Image, is_falling: bool, deadline: float | None) -> Image.Image:
    """An image as RGB, without metadata. Transparency is laid on white, grey of 16 or 32 bits is scaled to 8.

    Args:
        image: Decoded. Not usable any more.
        is_falling: Whether levels of 16 bits fall from white to black.
        deadline: For `check_deadline`.

    Raises:
        DeadlineExceededError: no time left.
    """
    convert = _converter(image, is_falling)
    if convert is None:
        plain = image.convert("RGB") if image.mode != "RGB" else image
        plain.info.clear()
        return plain
    result = Image.new("RGB", image.size)
    for box in strips(image.size):
        check_deadline(deadline)
        result.paste(convert(image.crop(box)), box)
    return result


def _converter(image: Image.Image, is_falling: bool) -> Callable[[Image.Image], Image.Image] | None:
    """What makes RGB of a part of an image; None where Pillow does so in one step."""
    if image.mode.startswith("I"):
        return _DeepGrey(image, is_falling).to_rgb
    return _on_white if image.has_transparency_data else None


def _on_white(part: Image.Image) -> Image.Image:
    clear = part if part.mode == "RGBA" else part.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", part.size, "white"), clear).convert("RGB")


class _DeepGrey:
    """Grey of 16 or 32 bits, in the modes that Pillow calls I, to 0..255.

    Levels of 16 bits span 0..65535. Wider types carry no range: levels within 0..255 or 0..65535 are taken to span it,
    anything else is stretched from its least to its greatest.
    """

    def __init__(self, image: Image.Image, is_falling: bool) -> None:
        self._clear = image.info.get("transparency")
        self._is_falling = is_falling and image.mode != "I"
        low, high = cast("tuple[int, int]", image.getextrema()) if image.mode == "I" else (0, 65_535)
        if low >= 0 and high <= 65_535:
            low, high = 0, 255 if high <= 255 else 65_535
        self._low, self._span = low, max(high - low, 1)

    def to_rgb(self, part: Image.Image) -> Image.Image:
        levels = np.asarray(part)
        grey = self._to_8_bit(65_535 - levels if self._is_falling else levels)
        if self._clear is not None:
            grey[levels == self._clear] = 255
        return Image.fromarray(grey).convert("RGB")

    def _to_8_bit(self, levels: NDArray[np.integer]) -> NDArray[np.uint8]:
        kind = np.float32 if levels.dtype.itemsize == 2 else np.float64
        return np.round((levels.astype(kind) - self._low) / self._span * 255).astype(np.uint8)

"""Instance PNGs: one 8- or 16-bit picture in which pixel value k is segment k - 1, and 0 the background."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from sa2va_bento.types import Segment


def to_png(segments: Sequence[Segment], size: tuple[int, int]) -> Image.Image:
    """Where segments overlap, the later one is seen. 16 bits where there are more than 255."""
    width, height = size
    levels = np.zeros((height, width), np.uint8 if len(segments) < 256 else np.uint16)
    for number, segment in enumerate(segments, 1):
        levels[segment.mask] = number
    return Image.fromarray(levels)

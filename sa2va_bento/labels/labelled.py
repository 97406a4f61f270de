"""A picture with its segments, as converters take it."""

from collections.abc import Sequence
from dataclasses import dataclass

from sa2va_bento.media.mask_formats import area
from sa2va_bento.types import Segment

UNNAMED = "object"
"""What a segment is called that the reply has no phrase for."""


@dataclass(frozen=True)
class Labelled:
    """`name` is the picture's file name, `size` its (width, height)."""

    name: str
    size: tuple[int, int]
    segments: Sequence[Segment]

    @property
    def seen(self) -> list[Segment]:
        """The segments that have pixels: empty masks are no labels."""
        return [segment for segment in self.segments if area(segment.mask)]


def label_of(segment: Segment) -> str:
    """The name of its class."""
    return (segment.phrase or UNNAMED).strip() or UNNAMED


def classes_of(pictures: Sequence[Labelled]) -> list[str]:
    """Every class that occurs, in the order of its first occurrence."""
    return list(dict.fromkeys(label_of(segment) for picture in pictures for segment in picture.seen))

"""What the readers of the formats have in common: a file without what holds no pixels, and the refusal of one that
would cost more than its pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError, UnsupportedMediaError

SUPPORTED = "JPEG, PNG, WebP, GIF, BMP or TIFF"

BLOCK = 2**16
"""Bytes that are decoded between two looks at the clock, unless a format packs tighter: Pillow's own measure.

In JPEG a block of 8 x 8 pixels takes 2 bits at least: 17 million pixels, 100 ms."""


@dataclass(frozen=True)
class Stripped:
    """A file as Pillow is to see it. What Pillow would take from the rest, it takes time and memory for.

    Attributes:
        data: The file without what holds no pixels.
        metadata: What may tell the orientation and is no longer in the file, under the keys of `Image.info`.
        block: Bytes that are decoded between two looks at the clock, at most.
        stops: Places in the file where decoding stops for a look besides.
        patch: A place, and bytes that stand there instead.
    """

    data: bytes
    metadata: Mapping[str, object] = field(default_factory=dict)
    block: int = BLOCK
    stops: Sequence[int] = ()
    patch: tuple[int, bytes] = (0, b"")


def too_complex(name: str, what: str) -> PayloadTooLargeError:
    """The refusal of a picture by its structure; `name` is its field in the request, `what` is there too much of."""
    return PayloadTooLargeError(f"{name}: the picture is too complex: {what}")


def damaged(name: str) -> BadRequestError:
    """The refusal of a picture that can't be read; `name` is its field in the request."""
    return BadRequestError(f"{name}: the picture is truncated or damaged")


def unsupported(what: str, name: str) -> UnsupportedMediaError:
    """The refusal of a picture of another kind; `name` is its field in the request."""
    return UnsupportedMediaError(f"{name}: {what} is not supported (expected {SUPPORTED})")

"""GIF files before Pillow (GIF89a): what stands before the first picture, left out but for what tells its pixels.

Comments and application data are chains of blocks of up to 255 bytes, which Pillow reads one by one.
"""

import re

from sa2va_bento.media.stripped import Stripped, too_complex

MOST_BLOCKS = 2**16
"""Most blocks before the first picture: 16 MB of XMP or of colour profiles."""

_BLOCK = 2**13
"""Bytes between two looks at the clock: 12 bits may stand for 4096 pixels, so 22 million pixels, 60 ms."""

_HEADER = 13
_NEXT = re.compile(rb"[!,;]")
"""What introduces an extension, a picture, and the end; Pillow passes over all else."""

_CONTROL = 0xF9
"""Label of the extension that tells the clear colour of the picture after it."""


def strip(data: bytes, name: str) -> Stripped:
    """A GIF whose first picture follows its header; `name` is its field in the request.

    Raises:
        PayloadTooLargeError: over `MOST_BLOCKS`.
    """
    header = _HEADER + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    place, control, blocks = header, b"", 0
    while (match := _NEXT.search(data, place)) and match[0] == b"!":
        body = match.end() + 1
        if data[match.end() : body] == bytes([_CONTROL]):
            control = _only_clear(data[body : body + 5]) or control
        place, count = _behind_blocks(data, body, MOST_BLOCKS - blocks)
        blocks += count
        if blocks >= MOST_BLOCKS:
            raise too_complex(name, f"over {MOST_BLOCKS} blocks before the picture")
    start = match.start() if match else len(data)
    kept = [data[:header], control, memoryview(data)[start:]]
    return Stripped(data if start == header else b"".join(kept), block=_BLOCK)


def _behind_blocks(data: bytes, place: int, most: int) -> tuple[int, int]:
    """The place behind a chain of blocks, each behind its length and the last empty, and how many these are."""
    for count in range(most):
        length = data[place] if place < len(data) else 0
        place += 1 + length
        if not length:
            return place, count + 1
    return place, most


def _only_clear(block: bytes) -> bytes:
    """The extension again with the clear colour as all that it tells: size (4), flags, delay (2), colour."""
    if len(block) < 5 or block[0] < 4:
        return b""
    return bytes([0x21, _CONTROL, 4, block[1] & 1, 0, 0, block[4], 0])

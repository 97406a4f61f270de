"""JPEG files before Pillow (ITU T.81): what they cost to decode, from their markers alone, and what holds no pixels.

A progressive file is a series of scans, each over every block of 8 x 8 pixels, and a scan takes a few bytes when it
changes nothing: 850 KB can hold 10,000 of them.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sa2va_bento.media.stripped import Stripped, too_complex

MOST_SCANS = 500
"""Most scans, as in libjpeg-turbo's own fuzzers. Encoders write about 10, libvips takes 100."""

MOST_SCAN_BLOCKS = 20_000_000
"""Most blocks in all the scans of a picture together.

The slowest scan, a refinement of all 63 coefficients, takes 70 ns a block: 1.4 s for all of these. The progressive
files of libjpeg take 16 for each block of a picture in full colour: 12.5 million for 50 million pixels, 17 in CMYK."""

MOST_SEGMENTS = 4096
"""Most segments. One holds 64 KB at most: a profile of 1 MB takes 16, the scans of a progressive file 2 or 3 each."""

MOST_TABLES = 2**18
"""Most bytes before the first scan that Pillow sees: tables (mostly 4 KB at most) and a thumbnail."""

_STEP = 2**20
"""Blocks of scans between two looks: 70 ms of the slowest."""

_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""No stuffed byte, no restart and no fill, which stand within a scan."""

_SOI, _EOI, _SOS, _APP0, _APP1, _APP14, _APP15, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_ARITHMETIC = frozenset({0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})

_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


class Segment(NamedTuple):
    """A marker at `start`; its content lies from `body`, behind its length, to `end`. That of a scan is its header."""

    marker: int
    start: int
    body: int
    end: int


@dataclass(frozen=True)
class Frame:
    """What a frame header announces: the process, how many components, and the blocks of the largest of them."""

    marker: int
    components: int
    blocks: int

    def blocks_of(self, scan: bytes) -> int:
        """Most blocks of a scan by its header, which begins with the number of its components."""
        return scan[0] * self.blocks

    def holds_all(self, scan: bytes) -> bool:
        """Whether this scan is all that libjpeg reads: it holds every component of a sequential picture."""
        return self.marker not in _PROGRESSIVE and scan[0] >= self.components


@dataclass
class Outline:
    """Of a picture: the segments before its scans, how many in all and how many scans, the blocks of these together,
    and the places between them where decoding is to pause."""

    head: list[Segment] = field(default_factory=list)
    segments: int = 0
    scans: int = 0
    blocks: int = 0
    stops: list[int] = field(default_factory=list)
    first: int | None = None
    since: int = 0

    def add(self, start: int, blocks: int) -> None:
        """A scan, at its place; `first` becomes that of the first, `since` counts the blocks since the last stop."""
        self.first = start if self.first is None else self.first
        self.scans += 1
        self.blocks += blocks
        self.since += blocks
        if self.scans > 1 and self.since > _STEP:
            self.stops.append(start)
            self.since = blocks


def strip(data: bytes, name: str) -> Stripped:
    """A JPEG without profiles, comments and further pictures; `name` is its field in the request.

    Raises:
        PayloadTooLargeError: over one of this module's limits.
    """
    outline = read_outline(data, 0, len(data), name)
    head = [segment for segment in outline.head if not _is_metadata(segment.marker)]
    kept = b"".join([data[:2], *(data[segment.start : segment.end] for segment in head)])
    if len(kept) > MOST_TABLES:
        raise too_complex(name, f"over {MOST_TABLES} bytes of tables")
    first = len(data) if outline.first is None else outline.first
    stripped = data if len(kept) == first else b"".join([kept, memoryview(data)[first:]])
    if any(segment.marker in _ARITHMETIC for segment in head):  # which libjpeg wants in one piece
        return Stripped(stripped, _metadata(data, outline.head), block=len(data))
    return Stripped(stripped, _metadata(data, outline.head), stops=[stop - first + len(kept) for stop in outline.stops])


def read_outline(data: bytes, start: int, end: int, name: str) -> Outline:
    """The outline of the JPEG between two places of a file.

    Raises:
        PayloadTooLargeError: over `MOST_SEGMENTS`, `MOST_SCANS`, or `MOST_SCAN_BLOCKS` in more than one scan.
    """
    frame, outline = None, Outline()
    for segment in _segments(data, start + 2, end):
        outline.segments += 1
        content = data[segment.body : segment.end]
        if segment.marker == _SOS and frame and content:
            outline.add(segment.start, frame.blocks_of(content))
            if frame.holds_all(content):
                break
        elif outline.first is None:
            outline.head.append(segment)
            frame = frame or (_read_frame(content, segment.marker) if segment.marker in _FRAMES else None)
        if outline.scans > MOST_SCANS:
            raise too_complex(name, f"over {MOST_SCANS} scans")
        if outline.scans > 1 and outline.blocks > MOST_SCAN_BLOCKS:
            raise too_complex(name, f"over {MOST_SCAN_BLOCKS} blocks in its scans")
        if outline.segments > MOST_SEGMENTS:
            raise too_complex(name, f"over {MOST_SEGMENTS} segments")
    return outline


def _segments(data: bytes, place: int, end: int) -> Iterator[Segment]:
    """The segments up to the end of a picture, or of what there is of it, in linear time."""
    while match := _MARKER.search(data, place, end):
        segment = _segment(data, match)
        place = segment.end
        if segment.marker == _EOI or place > end:
            return
        yield segment


def _segment(data: bytes, match: re.Match[bytes]) -> Segment:
    marker, body = match[1][0], match.end()
    if marker < 0xC0 or marker in (_SOI, _EOI):  # these stand alone
        return Segment(marker, match.start(), body, body)
    length = int.from_bytes(data[body : body + 2], "big")
    return Segment(marker, match.start(), body + 2, body + max(2, length))


def _read_frame(content: bytes, marker: int) -> Frame | None:
    """A frame header: precision, height, width, count, and of each component identifier, factors (4 + 4 bits), table.

    Lossless processes know no blocks: 8 samples take what the slowest block takes.
    """
    if len(content) < 9 or len(content) < 6 + 3 * content[5]:
        return None
    _, height, width, count = struct.unpack_from(">BHHB", content)
    factors = content[7 : 6 + 3 * count : 3]
    most_across, most_down = max(1, *(pair >> 4 for pair in factors)), max(1, *(pair & 15 for pair in factors))
    side, share = (1, 8) if marker in _LOSSLESS else (8, 1)
    units = -(-width // (side * most_across)) * -(-height // (side * most_down))
    return Frame(marker, count, units * max((pair >> 4) * (pair & 15) for pair in factors) // share)


def _is_metadata(marker: int) -> bool:
    """Application data and comments, but for those of JFIF and Adobe, which tell the colour space."""
    return marker == _COM or (_APP0 < marker <= _APP15 and marker != _APP14)


def _metadata(data: bytes, segments: list[Segment]) -> dict[str, object]:
    """EXIF (the first) and XMP (the last), which may tell the orientation."""
    found: dict[str, object] = {}
    for marker, _, body, end in segments:
        if marker == _APP1 and data.startswith(_EXIF, body, end):
            found.setdefault("exif", data[body:end])
        elif marker == _APP1 and data.startswith(_XMP, body, end):
            found["xmp"] = data[body:end]
    return found

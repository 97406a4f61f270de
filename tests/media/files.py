"""Files written by hand: what no encoder would write, byte by byte."""

import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from tests.pictures import encode, quarters

PNG = encode(quarters())


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(*chunks: bytes, data: bytes = PNG) -> bytes:
    """A PNG with more chunks after its header (8 + 25 bytes)."""
    return data[:33] + b"".join(chunks) + data[33:]


def with_last_chunks(*chunks: bytes, data: bytes = PNG) -> bytes:
    """A PNG with more chunks before its last (12 bytes)."""
    return data[:-12] + b"".join(chunks) + data[-12:]


def tiff(pixels: np.ndarray, photometric: int, sample_format: int, order: Literal["<", ">"] = "<") -> bytes:
    """An uncompressed TIFF of pixels (H, W) or (H, W, samples), with `order` of its bytes."""
    height, width, samples = (*pixels.shape, 1)[:3]
    stored = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    tags = {256: [width], 257: [height], 258: [8 * pixels.itemsize] * samples, 259: [1], 262: [photometric]}
    tags |= {273: [8], 277: [samples], 278: [height], 279: [len(stored)], 339: [sample_format] * samples}
    start = 8 + len(stored)
    entries, tail = b"", b""
    for tag, values in tags.items():
        packed = struct.pack(f"{order}{len(values)}H", *values)
        if len(packed) > 4:
            place = start + 2 + 12 * len(tags) + 4 + len(tail)
            tail, packed = tail + packed, struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return head + stored + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + tail


Values = tuple[int, int, bytes]
"""Type, count and bytes of a TIFF tag's values, little-endian."""


def shorts(*values: int) -> Values:
    return 3, len(values), struct.pack(f"<{len(values)}H", *values)


def longs(*values: int) -> Values:
    return 4, len(values), struct.pack(f"<{len(values)}I", *values)


def grey_tags(width: int, height: int, compression: int = 1) -> dict[int, Values]:
    """The tags of a grey picture of 8 bits, but for its strips or tiles."""
    tags = {256: longs(width), 257: longs(height), 258: shorts(8), 259: shorts(compression)}
    return {**tags, 262: shorts(1), 277: shorts(1)}


def tiff_of_tags(tags: Mapping[int, Values], body: bytes, is_big: bool = False) -> bytes:
    """A little-endian TIFF: header, `body` (from byte 8, or 16 in a BigTIFF), directory, values."""
    inside, number, offset = (8, "<Q", "<Q") if is_big else (4, "<H", "<I")
    place = (16 if is_big else 8) + len(body)
    behind = place + struct.calcsize(number) + len(tags) * (12 + 2 * inside - 8 + (4 if is_big else 0)) + inside
    entries, tail = b"", b""
    for tag, (kind, count, values) in sorted(tags.items()):
        if len(values) > inside:
            tail, values = tail + values, struct.pack(offset, behind + len(tail))
        entries += struct.pack("<HHQ" if is_big else "<HHI", tag, kind, count) + values.ljust(inside, b"\0")
    head = b"II+\0\x08\0\0\0" + struct.pack("<Q", place) if is_big else b"II*\0" + struct.pack("<I", place)
    return head + body + struct.pack(number, len(tags)) + entries + bytes(inside) + tail


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_head(size: tuple[int, int], components: int = 1, frame: int = 0xC2) -> bytes:
    """A JPEG up to its first scan: all tables know one code, a single bit, for "nothing" (DC) and "16384 empty blocks
    and 14 bits more" (AC)."""
    width, height = size
    parts = b"".join(bytes([number, 0x11, 0]) for number in range(1, components + 1))
    tables = segment(0xDB, b"\0" + b"\1" * 64)
    tables += segment(0xC4, b"\0\1" + bytes(16)) + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    return b"\xff\xd8" + tables + segment(frame, struct.pack(">BHHB", 8, height, width, components) + parts)


def scan(components: Iterable[int], band: tuple[int, int], bits: tuple[int, int], data: bytes) -> bytes:
    """A scan of a progressive JPEG: first and last coefficient, bits before (0: none) and after, coded data."""
    parts = b"".join(bytes([number, 0]) for number in components)
    return segment(0xDA, bytes([len(parts) // 2]) + parts + bytes([*band, bits[0] << 4 | bits[1]])) + data


def refinements(size: tuple[int, int], count: int, components: int = 1) -> bytes:
    """A progressive JPEG of nothing whose scans but the first ones refine nothing: the slowest that there are."""
    blocks = -(-size[0] // 8) * -(-size[1] // 8)
    skipped = "".join("0" + "1" * 14 for _ in range(-(-blocks // 32_767)))
    skipped += "1" * (-len(skipped) % 8)
    data = int(skipped, 2).to_bytes(len(skipped) // 8, "big").replace(b"\xff", b"\xff\0")
    numbers = range(1, components + 1)
    first = scan(numbers, (0, 0), (0, 0), bytes(-(-blocks * components // 8)))
    first += b"".join(scan([number], (1, 63), (0, 13), data) for number in numbers)
    again = b"".join(scan([number], (1, 63), (1, 0), data) for number in numbers)
    return jpeg_head(size, components) + first + again * count + b"\xff\xd9"


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP file of chunks."""
    packed = b"".join(kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2) for kind, body in chunks)
    return b"RIFF" + struct.pack("<I", len(packed) + 4) + b"WEBP" + packed


def run_lengths(size: tuple[int, int], runs: bytes) -> bytes:
    """A BMP of grey levels in run lengths of 8 bits."""
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, 8, 1, len(runs), 0, 0, 256, 0)
    levels = b"".join(bytes([level, level, level, 0]) for level in range(256))
    start = 14 + len(header) + len(levels)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + levels + runs

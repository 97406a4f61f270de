"""PNG files around Pillow: what holds no pixels is left out before it, the clear colour is put right after it."""

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from itertools import islice

from PIL import Image, ImageFile

from sa2va_bento.media.stripped import Stripped, too_complex

MOST_TEXT = 2**20
"""Most bytes of a text once it is unpacked: over it Pillow refuses the whole picture (its `MAX_TEXT_CHUNK`)."""

MOST_CHUNKS = 2**16
"""Most chunks. Pillow takes 4 us for one; writers put 8 KB of pixels into one, 24,000 into 200 MB."""

_BLOCK = 2**13
"""Bytes between two looks at the clock: zlib unpacks one to 1032 at most, so 8 MB, 100 ms with the slowest filter."""

_SIGNATURE = 8
_SEEN = (b"tRNS", b"eXIf")
"""Ancillary chunks that change what is seen."""

_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_TURNING = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"exif")
"""Keywords of the texts in which Pillow looks for an orientation."""


def to_data_url(image: Image.Image, compress_level: int = 6) -> str:
    """A PNG of an image as a data URL; `compress_level` is zlib's, 0 to 9."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=compress_level)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def strip(data: bytes, name: str) -> Stripped:
    """A PNG without its metadata; `name` is its field in the request.

    Raises:
        PayloadTooLargeError: over `MOST_CHUNKS`.
    """
    if sum(1 for _ in islice(_chunks(data), MOST_CHUNKS + 1)) > MOST_CHUNKS:
        raise too_complex(name, f"over {MOST_CHUNKS} chunks")
    return Stripped(without_metadata(data), block=_BLOCK)


def without_metadata(data: bytes) -> bytes:
    """A PNG without the ancillary chunks that hold no pixels: texts, colour profiles, times, further frames.

    Pillow would unpack them, and refuse a picture for what they hold. Texts that may tell the orientation stay, one of
    each keyword and `MOST_TEXT` bytes at most. It takes time linear in the file and never fails: damage is Pillow's.
    """
    pieces: list[bytes] = []
    kept, keywords = 0, set[bytes]()
    for kind, start, end in _chunks(data):
        if _is_metadata(kind) and not (kind in _TEXTS and _may_turn(kind, data[start + 8 : end - 4], keywords)):
            pieces.append(data[kept:start])
            kept = end
    return b"".join([*pieces, data[kept:]]) if pieces else data


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each whole chunk: the body's length (4 bytes), the kind (4), the body, a checksum (4)."""
    start = _SIGNATURE
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data) or kind == b"IEND":
            return
        yield kind, start, end
        start = end


def _is_metadata(kind: bytes) -> bool:
    """A small first letter marks the chunks that a reader may skip."""
    return kind.isalpha() and kind[:1].islower() and kind not in _SEEN


def _may_turn(kind: bytes, body: bytes, keywords: set[bytes]) -> bool:
    """Whether a text may tell the orientation and is small enough; `keywords` are those seen so far."""
    keyword = body[:80].partition(b"\0")[0]
    if keyword not in _TURNING or keyword in keywords:
        return False
    keywords.add(keyword)
    return len(body) <= MOST_TEXT and _unpacked_size(kind, body) <= MOST_TEXT


def _unpacked_size(kind: bytes, body: bytes) -> int:
    """Bytes of a text chunk once unpacked, counted to just over `MOST_TEXT`.

    zTXt: keyword, 0, method (0), packed text; iTXt: keyword, 0, flag (1 if packed), method (0), language, 0, translated
    keyword, 0, text.
    """
    _, _, rest = body.partition(b"\0")
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] != b"\1"):
        return len(body)
    packed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    try:
        return len(zlib.decompressobj().decompress(packed, MOST_TEXT + 1))
    except zlib.error:
        return 0  # Pillow passes over it


def scale_clear_color(image: Image.Image) -> None:
    """Brings the colour that a PNG's header calls clear to the scale of the levels that Pillow decodes.

    Grey of 2 and 4 bits is decoded to 0..255, of colours of 16 bits the upper byte remains. Before it is decoded only.
    """
    raw = image.tile[0].args if isinstance(image, ImageFile.ImageFile) and image.tile else None
    clear = image.info.get("transparency")
    if raw == "RGB;16B" and isinstance(clear, tuple):
        image.info["transparency"] = tuple(level >> 8 for level in clear)
    elif isinstance(clear, int) and raw in ("L;2", "L;4"):
        image.info["transparency"] = (clear & 3) * 85 if raw == "L;2" else (clear & 15) * 17

"""Pictures as they arrive (bytes, base64, data URLs) to upright 8-bit RGB images.

What a client sends decides nothing here but the pixels: the format is sniffed, the file's structure and the size in its
header are checked before Pillow sees it, what holds no pixels is left out, and every failure is an error of
`sa2va_bento.errors` in the client's terms.
"""

import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from PIL import Image, ImageFile
from PIL.WebPImagePlugin import WebPImageFile

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError, Sa2VAError
from sa2va_bento.media import bmp, gif, jpeg, png, tiff, webp
from sa2va_bento.media.color import to_rgb
from sa2va_bento.media.deadline import WatchedFile, check_deadline
from sa2va_bento.media.orientation import turn_upright
from sa2va_bento.media.stripped import SUPPORTED, Stripped, damaged, unsupported

MAX_SIDE = 65_535
"""Longest side in pixels, the most that a JPEG can have."""

_STRIP: dict[str, Callable[[bytes, str], Stripped]] = {
    "JPEG": jpeg.strip,
    "PNG": png.strip,
    "WEBP": webp.strip,
    "GIF": gif.strip,
    "BMP": bmp.strip,
    "TIFF": tiff.strip,
}
FORMATS = tuple(_STRIP)

_MAGIC = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM",
    "TIFF": rb"II[*+]\x00|MM\x00[*+]",
    "AVIF": rb"....ftypavi",
    "HEIF": rb"....ftyp(hei|mif1)",
    "MP4": rb"....ftyp",
    "WebM": rb"\x1aE\xdf\xa3",
    "PSD": rb"8BPS",
    "ICO": rb"\x00\x00\x01\x00",
    "JPEG 2000": rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51",
    "JPEG XL": rb"\x00\x00\x00\x0cJXL |\xff\x0a",
    "OpenEXR": rb"v/1\x01",
    "Radiance HDR": rb"#\?RADIANCE",
    "PDF": rb"%PDF",
    "PostScript": rb"%!PS",
    "SVG": rb"\s*<(svg|\?xml)",
    "PNM": rb"P[56]\n",
    "QOI": rb"qoif",
    "DDS": rb"DDS ",
}
"""How files begin: of the supported formats, and of those to be refused by name rather than as no picture at all."""

_WHITE_SPACE = b" \t\n\r\v\f\x1c\x1d\x1e\x1f"
_STANDARD = bytes.maketrans(b"-_", b"+/")
_SLICE = 2**18
"""Characters of base64 that are decoded at a time, in a millisecond."""
_ESCAPES = {b"%3D": b"=", b"%2B": b"+", b"%2F": b"/", b"%20": b"", b"%0A": b"", b"%0D": b"", b"%09": b""}
"""Percent-encoding of what base64 has and URLs may not, and of white space (RFC 3986)."""


def decode_base64(text: str, field: str = "base64Image") -> bytes:
    """Bytes of a base64 text or of a base64 data URL.

    White space is skipped, the URL-safe alphabet and missing padding are accepted, and in data URLs percent-encoding;
    nothing else is. Time is linear in the text, memory three times its size at most, the text included. It is done a
    slice at a time: of all at once no other thread of Python would get its turn for a tenth of a second.

    Args:
        text: What the client sent.
        field: Its name in the request, for the message.

    Raises:
        BadRequestError: It is empty or not base64.
    """
    try:
        pieces = list(_decoded(_payload(text, field)))
    except (binascii.Error, UnicodeEncodeError):
        raise BadRequestError(f"{field}: not valid base64") from None
    if not (data := b"".join(pieces)):
        raise BadRequestError(f"{field}: empty")
    return data


def _payload(text: str, field: str) -> bytes:
    """The base64 itself, in one alphabet. Raises UnicodeEncodeError besides."""
    payload = text.strip().encode("ascii")
    if payload[:5].lower() == b"data:":
        payload = payload[_end_of_header(payload, field) :]
        for escape, byte in _ESCAPES.items() if b"%" in payload else ():
            payload = payload.replace(escape, byte).replace(escape.lower(), byte)
    if (b"-" in payload or b"_" in payload) and (b"+" in payload or b"/" in payload):
        raise BadRequestError(f"{field}: not valid base64 (it mixes the standard and the URL-safe alphabet)")
    return payload


def _decoded(payload: bytes) -> Iterator[bytes]:
    """What a payload holds, slice by slice. Raises binascii.Error."""
    rest = b""
    for start in range(0, len(payload), _SLICE):
        rest += payload[start : start + _SLICE].translate(_STANDARD, _WHITE_SPACE)
        whole = max(0, len(rest) // 4 * 4 - 4)  # the end, which may want padding, comes last
        if rest[whole - 1 : whole] == b"=":
            raise binascii.Error("padding amid the data")
        yield binascii.a2b_base64(rest[:whole], strict_mode=True)
        rest = rest[whole:]
    yield binascii.a2b_base64(_padded(rest), strict_mode=True)


def _padded(end: bytes) -> bytes:
    """The last characters with as much padding as they want."""
    padding = sum(end[-place:].startswith(b"=") for place in (1, 2))
    missing = -(len(end) - padding) % 4 - padding
    return end[:missing] if missing < 0 else end + b"=" * missing


def _end_of_header(url: bytes, field: str) -> int:
    """Where the data of a data URL begins (RFC 2397)."""
    comma = url.find(b",")
    if url[: max(comma, 0)].rpartition(b";")[2].strip().lower() != b"base64":
        raise BadRequestError(f"{field}: a data URL must read data:<type>;base64,<data>")
    return comma + 1


class Opened(NamedTuple):
    """A picture of which the header is read, and what else may tell its orientation, under the keys of `Image.info`."""

    image: ImageFile.ImageFile
    metadata: Mapping[Any, object]


def decode_image(
    data: bytes, max_pixels: int, field: str = "base64Image", deadline: float | None = None
) -> Image.Image:
    """An upright RGB image (8 bits) of the first frame of an encoded picture.

    Transparency is laid on white, grey of 16 or 32 bits is scaled to 8.

    Args:
        data: JPEG, PNG, WebP, GIF, BMP or TIFF.
        max_pixels: Most pixels (width x height); checked before decoding.
        field: Name in the request, for messages.
        deadline: When to give up, a value of `time.monotonic()`; None never does. Some steps can't be stopped: WebP,
            packed TIFF, and the last of a progressive JPEG.

    Raises:
        BadRequestError: Not a picture, or a truncated or damaged one.
        UnsupportedMediaError: A picture in another format, or of floating-point or LAB levels.
        PayloadTooLargeError: Too many pixels, or too complex a file for what it shows.
        DeadlineExceededError: The deadline has passed.
    """
    image, metadata = open_image(data, max_pixels, field, deadline)
    try:
        frame = _load(image)
        check_deadline(deadline)
        is_falling = tiff.has_white_at_zero(image)
        image = turn_upright(frame, {**frame.info, **metadata})
        del frame  # nothing holds the file any more
        return to_rgb(image, is_falling, deadline)
    except Sa2VAError:
        raise
    except (MemoryError, Image.DecompressionBombError):
        raise PayloadTooLargeError(f"{field}: the picture is too large to decode") from None
    except Exception:  # Pillow's decoders raise whatever their parsers run into
        raise damaged(field) from None


def open_image(data: bytes, max_pixels: int, field: str, deadline: float | None = None) -> Opened:
    """Reads the header only: an image of a supported format and a permitted size, not yet decoded.

    Raises:
        As `decode_image`.
    """
    name = sniff_format(data)
    if name is None:
        raise BadRequestError(f"{field}: not a picture (expected {SUPPORTED})")
    if name not in FORMATS:
        raise unsupported(name, field)
    try:
        stripped = _STRIP[name](data, field)
        image = _open(stripped, name, deadline)
    except Sa2VAError:
        raise
    except (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PayloadTooLargeError(f"{field}: {_too_many(max_pixels)}") from None
    except Exception:  # as above, already in the header
        raise damaged(field) from None
    if image.mode == "LAB":
        raise unsupported("the LAB colour space", field)
    _check_size(image.size, max_pixels, field)
    png.scale_clear_color(image)
    return Opened(image, stripped.metadata)


def _open(stripped: Stripped, name: str, deadline: float | None) -> ImageFile.ImageFile:
    image = Image.open(WatchedFile(stripped.data, deadline, stripped.stops, stripped.patch), formats=[name])
    assert isinstance(image, ImageFile.ImageFile)
    image.decodermaxblock = stripped.block
    return image


def _load(image: ImageFile.ImageFile) -> Image.Image:
    if isinstance(image, WebPImageFile):
        return webp.first_frame(image)
    image.load()
    return image


def sniff_format(data: bytes) -> str | None:
    """Name of the format that the first bytes announce, or None when they are no picture's."""
    return next((name for name, magic in _MAGIC.items() if re.match(magic, data[:64], re.DOTALL)), None)


def _check_size(size: tuple[int, int], max_pixels: int, field: str) -> None:
    width, height = size
    if width * height > max_pixels:
        raise PayloadTooLargeError(f"{field}: {width}x{height} pixels, {_too_many(max_pixels)}")
    if max(size) > MAX_SIDE:
        raise PayloadTooLargeError(f"{field}: {width}x{height} pixels, a side may have {MAX_SIDE} at most")


def _too_many(max_pixels: int) -> str:
    return f"over the limit of {max_pixels / 1e6:g} million pixels"

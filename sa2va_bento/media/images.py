"""Pictures as they arrive (bytes, base64, data URLs) to upright 8-bit RGB images.

What a client sends decides nothing here but the pixels: the format is sniffed, the size is checked from the
header before a pixel is decoded, and every failure is an error of `sa2va_bento.errors` in the client's terms.
"""

import base64
import binascii
import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError, UnsupportedMediaError
from sa2va_bento.media.png import scale_clear_color, without_metadata
from sa2va_bento.media.tiff import has_float_samples, has_white_at_zero

MAX_SIDE = 65_535
"""Longest side in pixels, the most that a JPEG can have."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_SUPPORTED = "JPEG, PNG, WebP, GIF, BMP or TIFF"

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

_URLSAFE = str.maketrans("-_", "+/")


def decode_base64(text: str, field: str = "base64Image") -> bytes:
    """Bytes of a base64 text or of a base64 data URL.

    White space is skipped, the URL-safe alphabet and missing padding are accepted; nothing else is.

    Args:
        text: What the client sent.
        field: Its name in the request, for the message.

    Raises:
        BadRequestError: It is empty or not base64.
    """
    payload = text.strip()
    if payload[:5].lower() == "data:":
        header, comma, payload = payload.partition(",")
        if not comma or not header.lower().endswith(";base64"):
            raise BadRequestError(f"{field}: a data URL must read data:<type>;base64,<data>")
    payload = "".join(payload.split())
    if "-" in payload or "_" in payload:
        payload = _to_standard_alphabet(payload, field)
    payload = payload.rstrip("=") if len(payload) - len(payload.rstrip("=")) <= 2 else payload
    try:
        data = base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequestError(f"{field}: not valid base64") from None
    if not data:
        raise BadRequestError(f"{field}: empty")
    return data


def _to_standard_alphabet(payload: str, field: str) -> str:
    if "+" in payload or "/" in payload:
        raise BadRequestError(f"{field}: not valid base64 (it mixes the standard and the URL-safe alphabet)")
    return payload.translate(_URLSAFE)


def decode_image(data: bytes, max_pixels: int, field: str = "base64Image") -> Image.Image:
    """An upright RGB image (8 bits) of the first frame of an encoded picture.

    Transparency is laid on white, grey of 16 or 32 bits is scaled to 8.

    Args:
        data: JPEG, PNG, WebP, GIF, BMP or TIFF.
        max_pixels: Most pixels (width x height); checked before decoding.
        field: Name in the request, for messages.

    Raises:
        BadRequestError: Not a picture, or a truncated or damaged one.
        UnsupportedMediaError: A picture in another format, or of floating-point or LAB levels.
        PayloadTooLargeError: Too many pixels.
    """
    image = open_image(data, max_pixels, field)
    try:
        image.load()
        _turn_upright(image)
        return _to_rgb(image)
    except (MemoryError, Image.DecompressionBombError):
        raise PayloadTooLargeError(f"{field}: the picture is too large to decode") from None
    except Exception:  # Pillow's decoders raise whatever their parsers run into
        raise BadRequestError(f"{field}: the picture is truncated or damaged") from None


def open_image(data: bytes, max_pixels: int, field: str) -> Image.Image:
    """Reads the header only: an image of a supported format and a permitted size, not yet decoded.

    Raises:
        As `decode_image`.
    """
    name = sniff_format(data)
    if name is None:
        raise BadRequestError(f"{field}: not a picture (expected {_SUPPORTED})")
    if name not in FORMATS:
        raise _unsupported(name, field)
    if name == "TIFF" and has_float_samples(data):
        raise _unsupported("a TIFF of floating-point numbers", field)
    try:
        image = Image.open(io.BytesIO(without_metadata(data) if name == "PNG" else data), formats=[name])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PayloadTooLargeError(f"{field}: {_too_many(max_pixels)}") from None
    except Exception:  # as above, already in the header
        raise BadRequestError(f"{field}: the picture is truncated or damaged") from None
    if image.mode == "LAB":
        raise _unsupported("the LAB colour space", field)
    _check_size(image.size, max_pixels, field)
    scale_clear_color(image)
    return image


def sniff_format(data: bytes) -> str | None:
    """Name of the format that the first bytes announce, or None when they are no picture's."""
    return next((name for name, magic in _MAGIC.items() if re.match(magic, data[:64], re.DOTALL)), None)


def _unsupported(what: str, field: str) -> UnsupportedMediaError:
    return UnsupportedMediaError(f"{field}: {what} is not supported (expected {_SUPPORTED})")


def _check_size(size: tuple[int, int], max_pixels: int, field: str) -> None:
    width, height = size
    if width * height > max_pixels:
        raise PayloadTooLargeError(f"{field}: {width}x{height} pixels, {_too_many(max_pixels)}")
    if max(size) > MAX_SIDE:
        raise PayloadTooLargeError(f"{field}: {width}x{height} pixels, a side may have {MAX_SIDE} at most")


def _too_many(max_pixels: int) -> str:
    return f"over the limit of {max_pixels / 1e6:g} million pixels"


def _turn_upright(image: Image.Image) -> None:
    """Turns a decoded image in place as its EXIF orientation asks; unreadable EXIF asks nothing."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # any malformed tag
        return


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _deep_grey_to_rgb(image)
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    plain = image.convert("RGB")  # a fresh image even from RGB: no file handle travels on,
    plain.info.clear()  # nor metadata
    return plain


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _deep_grey_to_rgb(image: Image.Image) -> Image.Image:
    """Of 16 or 32 bits, in the modes that Pillow calls I."""
    levels = np.asarray(image)
    grey = _to_8_bit(65_535 - levels if image.mode != "I" and has_white_at_zero(image) else levels)
    if (clear := image.info.get("transparency")) is not None:
        grey[levels == clear] = 255
    return Image.fromarray(grey).convert("RGB")


def _to_8_bit(levels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Grey levels (H, W) to 0..255, by the range that their type and extremes suggest.

    Unsigned 16-bit levels span 0..65535. Wider types carry no range: values within 0..255 or 0..65535 are taken to
    span it, anything else is stretched from its least to its greatest.
    """
    if levels.dtype.itemsize == 2:
        return np.round(levels.astype(np.float32) / 257).astype(np.uint8)
    low, high = int(levels.min()), int(levels.max())
    if low >= 0 and high <= 65_535:
        low, high = 0, 255 if high <= 255 else 65_535
    return np.round((levels.astype(np.float64) - low) / max(high - low, 1) * 255).astype(np.uint8)

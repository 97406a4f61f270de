"""Pictures as they arrive (bytes, base64, data URLs) to upright 8-bit RGB images.

What a client sends decides nothing here but the pixels: the format is sniffed, the size is checked from the
header before a pixel is decoded, and every failure is an error of `sa2va_bento.errors` in the client's terms.
"""

import base64
import binascii
import io

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError, UnsupportedMediaError

MAX_SIDE = 65_535
"""Longest side in pixels, the most that a JPEG can have."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_SUPPORTED = "JPEG, PNG, WebP, GIF, BMP or TIFF"

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIF"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftyp", "MP4"),
    (0, b"\x1aE\xdf\xa3", "WebM"),
    (0, b"8BPS", "PSD"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"<svg", "SVG"),
    (0, b"P5\n", "PGM"),
    (0, b"P6\n", "PPM"),
    (0, b"qoif", "QOI"),
    (0, b"DDS ", "DDS"),
)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
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

    Transparency is laid on white, 16-bit and floating-point grey is scaled to 8 bits.

    Args:
        data: JPEG, PNG, WebP, GIF, BMP or TIFF.
        max_pixels: Most pixels (width x height); checked before decoding.
        field: Name in the request, for messages.

    Raises:
        BadRequestError: Not a picture, or a truncated or damaged one.
        UnsupportedMediaError: A picture in another format.
        PayloadTooLargeError: Too many pixels.
    """
    image = open_image(data, max_pixels, field)
    try:
        image.load()
        return _to_rgb(_upright(image))
    except (MemoryError, Image.DecompressionBombError):
        raise PayloadTooLargeError(f"{field}: the picture is too large to decode") from None
    except UnsupportedMediaError:
        raise
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
        raise UnsupportedMediaError(f"{field}: {name} is not supported (expected {_SUPPORTED})")
    try:
        image = Image.open(io.BytesIO(data), formats=[name])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PayloadTooLargeError(f"{field}: {_too_many(max_pixels)}") from None
    except Exception:  # as above, already in the header
        raise BadRequestError(f"{field}: the picture is truncated or damaged") from None
    _check_size(image.size, max_pixels, field)
    return image


def sniff_format(data: bytes) -> str | None:
    """Name of the format that the first bytes announce, or None when they are no picture's."""
    head = data[:64]
    for offset, magic, name in _MAGIC:
        if head.startswith(magic, offset):
            return name
    if head.lstrip().startswith((b"<?xml", b"<svg")):
        return "SVG"
    return None


def _check_size(size: tuple[int, int], max_pixels: int, field: str) -> None:
    width, height = size
    if width * height > max_pixels:
        raise PayloadTooLargeError(f"{field}: {width}x{height} pixels, {_too_many(max_pixels)}")
    if max(size) > MAX_SIDE:
        raise PayloadTooLargeError(f"{field}: {width}x{height} pixels, a side may have {MAX_SIDE} at most")


def _too_many(max_pixels: int) -> str:
    return f"over the limit of {max_pixels / 1e6:g} million pixels"


def _upright(image: Image.Image) -> Image.Image:
    """Turns a decoded image as its EXIF orientation asks; unreadable EXIF asks nothing."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # any malformed tag
        return image
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_grey_to_8_bit(np.asarray(image))).convert("RGB")
    if image.mode == "LAB":
        raise UnsupportedMediaError("a picture in the LAB colour space is not supported")
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    plain = image.convert("RGB")  # a fresh image even from RGB: no file handle travels on,
    plain.info.clear()  # nor metadata
    return plain


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _grey_to_8_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey levels (H, W) to 0..255, by the range that their type and extremes suggest.

    Unsigned 16-bit levels span 0..65535. Wider types carry no range: values within 0..1 (floats only), 0..255
    or 0..65535 are taken to span it, anything else is stretched from its least to its greatest.
    """
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return np.round(values.astype(np.float32) / 257).astype(np.uint8)
    levels = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(levels.min()), float(levels.max())
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        span = (0.0, 1.0)
    elif low >= 0 and high <= 65_535:
        span = (0.0, 255.0 if high <= 255 else 65_535.0)
    else:
        span = (low, high)
    return np.round((levels - span[0]) / max(span[1] - span[0], 1e-12) * 255).astype(np.uint8)

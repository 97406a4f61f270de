"""Which way up a picture is: from the EXIF or XMP that came with it, and turned.

Metadata never cost more than a look at their first directory: Pillow, asked for EXIF, unpacks every value of it.
"""

import re
from collections.abc import Mapping
from typing import Any

from PIL import Image

from sa2va_bento.media.tiff_directory import read_directory

MOST_TEXT = 2**20
"""Most bytes or characters of a text in which the orientation is looked for."""

_TAG = 0x0112
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_TRANSPOSE = Image.Transpose
_METHODS = {
    2: _TRANSPOSE.FLIP_LEFT_RIGHT,
    3: _TRANSPOSE.ROTATE_180,
    4: _TRANSPOSE.FLIP_TOP_BOTTOM,
    5: _TRANSPOSE.TRANSPOSE,
    6: _TRANSPOSE.ROTATE_270,
    7: _TRANSPOSE.TRANSVERSE,
    8: _TRANSPOSE.ROTATE_90,
}
"""EXIF's orientation, and what undoes it."""


def turn_upright(image: Image.Image, info: Mapping[Any, object]) -> Image.Image:
    """A plain image of the same mode, turned as `info` asks (its keys are Pillow's); it holds no file."""
    method = _METHODS.get(read_orientation(info))
    return image._new(image.im) if method is None else image.transpose(method)


def read_orientation(info: Mapping[Any, object]) -> int:
    """EXIF's orientation, 1 to 8, of EXIF or else XMP; 1 where neither tells, or what they are can't be read."""
    exif, profile = info.get("exif"), info.get("Raw profile type exif")
    if exif is None and isinstance(profile, str):
        exif = _unpack_profile(profile)
    asked = _of_exif(exif) if isinstance(exif, bytes) else None
    if asked is None:
        asked = _of_xmp(info.get("XML:com.adobe.xmp") or info.get("xmp"))
    return asked if asked in _METHODS else 1


def _of_exif(exif: bytes) -> int | None:
    """EXIF is a TIFF file, often behind six bytes of its own."""
    directory = read_directory(exif[6:] if exif.startswith(b"Exif\0\0") else exif)
    return directory.first(_TAG) if directory else None


def _of_xmp(xmp: object) -> int | None:
    text = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp
    match = _XMP.search(text, 0, MOST_TEXT) if isinstance(text, bytes) else None
    return int(match[1]) if match else None


def _unpack_profile(text: str) -> bytes:
    """EXIF as ImageMagick puts it into PNG: a line break, a name, a length, and hexadecimal digits."""
    digits = "".join(text[: 2**16].split("\n")[3:])
    try:
        return bytes.fromhex(digits[: len(digits) // 2 * 2])
    except ValueError:
        return b""

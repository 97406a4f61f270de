"""WebP files around Pillow (RFC 9649): how many chunks they hold, and their first frame."""

import struct

from PIL import Image
from PIL.WebPImagePlugin import WebPImageFile

from sa2va_bento.media.stripped import Stripped, too_complex

MOST_CHUNKS = 2**16
"""Most chunks, frames among them. libwebp lists them all, at 50 bytes each or more, to decode the first."""

_HEADER = 12


def strip(data: bytes, name: str) -> Stripped:
    """The same file; `name` is its field in the request. Raises PayloadTooLargeError over `MOST_CHUNKS`."""
    place = _HEADER
    for _ in range(MOST_CHUNKS):
        if place + 8 > len(data):
            return Stripped(data)
        size = struct.unpack_from("<I", data, place + 4)[0]
        place += 8 + size + size % 2
    raise too_complex(name, f"over {MOST_CHUNKS} chunks")


def first_frame(image: WebPImageFile) -> Image.Image:
    """The first frame, decoded, of mode RGBX or RGBA.

    Pillow's `load` copies it once more beside libwebp's three copies: 16 bytes a pixel, here 12.
    """
    data, _, _ = image._get_next()
    frame = Image.frombuffer(image.rawmode, image.size, data, "raw", image.rawmode, 0, 1)
    frame.info = image.info
    return frame

"""BMP files before Pillow: those of run lengths, which it decodes in Python."""

import struct

from sa2va_bento.media.stripped import Stripped, too_complex

MOST_PIXELS = 2**22
"""Most pixels of a file of run lengths, a large screen's: 1 s at the 0.23 us that Pillow takes for one at worst."""

MOST_BYTES = 2**21
"""Most bytes of such a file: 1.5 s at the 1.5 us that Pillow takes for a run, of two."""

_RUN_LENGTHS = (1, 2)
"""Values of the header's field for the compression: runs of 8 and of 4 bits."""


def strip(data: bytes, name: str) -> Stripped:
    """The same file; `name` is its field in the request.

    Raises:
        PayloadTooLargeError: run lengths, and over `MOST_PIXELS` or `MOST_BYTES`.
    """
    if len(data) >= 34 and data[14] != 12:  # the oldest headers have 12 bytes and know no compression
        width, height, _, compression = struct.unpack_from("<iiII", data, 18)
        pixels = abs(width * height)
        if compression in _RUN_LENGTHS and (pixels > MOST_PIXELS or len(data) > MOST_BYTES):
            most = f"{MOST_PIXELS} in {MOST_BYTES} at most are taken"
            raise too_complex(name, f"run lengths of {pixels} pixels in {len(data)} bytes, {most}")
    return Stripped(data)

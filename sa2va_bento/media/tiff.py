"""What Pillow does not tell of TIFF files, or tells wrong (TIFF 6.0, and BigTIFF where Pillow reads it)."""

import io

from PIL import Image, TiffImagePlugin

_FLOATS = {3, 6}
"""Values of SampleFormat: IEEE floating point, and complex of the same."""

_WHITE_IS_ZERO = 0
"""Value of PhotometricInterpretation; Pillow takes a file without one for this too."""

TiffImagePlugin.OPEN_INFO[(b"MM", _WHITE_IS_ZERO, (1,), 1, (16,), ())] = ("I;16B", "I;16B")
"""Pillow knows this layout in the other byte order only."""


def has_float_samples(data: bytes) -> bool:
    """Whether the first picture of a TIFF announces floating-point samples, by its tags alone; no if it is damaged."""
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2] == 43 else 8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        return not _FLOATS.isdisjoint(directory.get(TiffImagePlugin.SAMPLEFORMAT, ()))
    except Exception:  # whatever the parser runs into
        return False


def has_white_at_zero(image: Image.Image) -> bool:
    """Whether an image's levels rise from white to black. Pillow turns those of up to 8 bits round, no others."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    return image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, _WHITE_IS_ZERO) == _WHITE_IS_ZERO

"""Whatever a Python user has of a picture, as the core takes it: an upright RGB image."""

import os
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sa2va_bento.errors import BadRequestError
from sa2va_bento.media.color import to_rgb
from sa2va_bento.media.images import decode_image


class Readable(Protocol):
    """A file that is not on this machine's disk."""

    def read_bytes(self) -> bytes:
        """Raises OSError."""
        ...


AnyPicture = Image.Image | NDArray[np.generic] | bytes | str | os.PathLike[str] | Readable
MOST_PIXELS = 200_000_000


def to_image(picture: AnyPicture) -> Image.Image:
    """An upright RGB image of a path, bytes, an image of Pillow in any mode, or an array.

    Args:
        picture: An array is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8, or floats from 0 to 1; anything else of
            whole numbers would be a guess. Transparency is laid on white.

    Raises:
        BadRequestError: it is none of these, or damaged.
        FileNotFoundError: there is no such file.
    """
    if isinstance(picture, Image.Image):
        return _from_pillow(picture)
    if isinstance(picture, np.ndarray):
        return _from_pillow(_from_array(picture))
    if isinstance(picture, bytes | bytearray | memoryview):
        return decode_image(bytes(picture), MOST_PIXELS, "picture")
    if isinstance(picture, str | os.PathLike):
        return decode_image(Path(picture).expanduser().read_bytes(), MOST_PIXELS, str(picture))
    if hasattr(picture, "read_bytes"):
        return decode_image(picture.read_bytes(), MOST_PIXELS, str(picture))
    raise BadRequestError(f"a picture is a path, bytes, an image or an array, not {type(picture).__name__}")


def _from_pillow(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    return to_rgb(upright, False, None)


def _from_array(array: NDArray[np.generic]) -> Image.Image:
    pixels = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)) or 0 in pixels.shape:
        raise BadRequestError(f"an array of a picture is (H, W), (H, W, 3) or (H, W, 4), not {array.shape}")
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    elif np.issubdtype(pixels.dtype, np.floating):
        if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:  # type: ignore[operator]
            raise BadRequestError("an array of floats goes from 0 to 1")
        pixels = np.round(pixels * 255).astype(np.uint8)  # type: ignore[operator]
    elif pixels.dtype != np.uint8:
        raise BadRequestError(f"an array of a picture holds uint8, or floats from 0 to 1, not {pixels.dtype}")
    return Image.fromarray(np.ascontiguousarray(pixels))

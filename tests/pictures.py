"""Pictures in memory, encoded as clients send them."""

import base64
import io

import numpy as np
from PIL import Image


def encode(image: Image.Image, picture_format: str = "PNG", **options: object) -> bytes:
    """The file of a picture."""
    buffer = io.BytesIO()
    image.save(buffer, picture_format, **options)
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def quarters() -> Image.Image:
    """48 x 32 pixels: red, green / blue, white quarters, so that every turn and flip shows."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24] = (255, 0, 0)
    pixels[:16, 24:] = (0, 255, 0)
    pixels[16:, :24] = (0, 0, 255)
    pixels[16:, 24:] = (255, 255, 255)
    return Image.fromarray(pixels)


def bomb() -> bytes:
    """A PNG of 20000 x 20000 pixels in 50 KB."""
    return encode(Image.new("1", (20_000, 20_000)), optimize=False)


PICTURE = b64(encode(quarters()))

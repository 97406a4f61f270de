"""The image processor of the Qwen-VL layout: a picture to patches for the vision tower.

Upstream resizes a picture twice: qwen_vl_utils to a multiple of 28 pixels (whatever the model's own unit), then the
image processor to the model's unit and to between 512 and 2048 tokens of 28 x 28 pixels. Both resizings are part of
what the weights were trained with; the arithmetic is that of transformers' PIL image processor.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sa2va_bento.errors import BadRequestError
from sa2va_bento.model.pixels import content_key, sam_pixels
from sa2va_bento.model.qwen_vl.config import MOST_PIXELS, TILE, QwenVLConfig
from sa2va_bento.types import Picture, Pixels, TokenGrid

UNIT = 28
FIRST_PIXELS = (4 * UNIT**2, 16384 * UNIT**2)
"""The fewest and the most pixels after the first resizing (qwen_vl_utils)."""
SECOND_PIXELS = (512 * UNIT**2, MOST_PIXELS)
"""And after the second (Sa2VA)."""
MOST_ELONGATED = 200

Size = tuple[int, int]
"""Width and height, as in `Image.size`."""


def process_image(
    config: QwenVLConfig, image: Image.Image, regions: Sequence[NDArray[np.bool_]] = (), max_tiles: int | None = None
) -> Picture:
    """Prepares an RGB picture. `max_tiles` limits its pixels to those of that many tiles of 448 x 448. There are no
    regions: the family does not take them.

    Raises:
        BadRequestError: the picture is too elongated.
    """
    first = resized(image.size, UNIT, *FIRST_PIXELS)
    fewest, most = SECOND_PIXELS
    most = min(most, max_tiles * TILE**2) if max_tiles else most
    second = resized(first, config.cell, min(fewest, most), most)
    columns, rows = (side // config.cell for side in second)
    key = content_key(image)
    return Picture(
        key=key,
        tiles_key=f"{key}/{columns}x{rows}",
        tile_count=math.ceil(second[0] * second[1] / TILE**2),
        tiles=Pixels(lambda: to_patches(_resize(_resize(image, first), second), config).numpy()),
        sam_pixels=Pixels(lambda: sam_pixels(image, config.sam2_shape.image_size).numpy()),
        size=image.size,
        grids=(TokenGrid(rows, columns),),
    )


def resized(size: Size, unit: int, fewest: int, most: int) -> Size:
    """The size nearest to `size` whose sides are multiples of `unit` and whose pixels are within the limits.

    Raises:
        BadRequestError: one side is more than 200 times the other.
    """
    width, height = size
    if max(size) > MOST_ELONGATED * min(size):
        raise BadRequestError(f"the picture is {width}x{height}; this model takes sides of at most 1 to 200")
    pixels, sides = width * height, [max(unit, round(side / unit) * unit) for side in size]
    if sides[0] * sides[1] > most:
        shrink = math.sqrt(pixels / most)
        sides = [max(unit, math.floor(side / shrink / unit) * unit) for side in size]
    elif sides[0] * sides[1] < fewest:
        grow = math.sqrt(fewest / pixels)
        sides = [math.ceil(side * grow / unit) * unit for side in size]
    return sides[0], sides[1]


def to_patches(image: Image.Image, config: QwenVLConfig) -> Tensor:
    """Normalised patches (P, D) of a picture, those of an image token one after the other; D runs over channels, over
    the frames that a patch spans (an image stands still) and over the patch's rows and columns."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
    mean, std = torch.tensor(config.kind.mean), torch.tensor(config.kind.std)
    pixels = pixels.sub(mean[:, None, None]).div(std[:, None, None])
    patch, merge, frames = config.patch, config.vision.spatial_merge_size, int(config.vision.temporal_patch_size)  # type: ignore[arg-type]
    _, height, width = pixels.shape
    rows, columns = height // config.cell, width // config.cell
    blocks = pixels.reshape(3, rows, merge, patch, columns, merge, patch).permute(1, 4, 2, 5, 0, 3, 6)
    spanned = blocks.unsqueeze(5).expand(-1, -1, -1, -1, -1, frames, -1, -1)
    return spanned.reshape(rows * columns * merge**2, 3 * frames * patch**2)


def _resize(image: Image.Image, size: Size) -> Image.Image:
    return image.resize(size, Image.Resampling.BICUBIC)

"""The image processor of the LLaVA layout: a picture to the square that CLIP sees.

Upstream stretches a picture to that square. (CLIP's own image processor would crop it instead.)
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sa2va_bento.model.llava.config import LlavaConfig
from sa2va_bento.model.pixels import channels, content_key, sam_pixels, to_tensor
from sa2va_bento.types import Picture, Pixels, TokenGrid

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's statistics, as in the published `preprocessor_config.json`."""


def process_image(
    config: LlavaConfig, image: Image.Image, regions: Sequence[NDArray[np.bool_]] = (), max_tiles: int | None = None
) -> Picture:
    """Prepares an RGB picture, whose cost does not depend on `max_tiles`. There are no regions: the family does not
    take them."""
    key = content_key(image)
    return Picture(
        key=key,
        tiles_key=f"{key}/whole",
        tile_count=1,
        tiles=Pixels(lambda: clip_pixels(image, config.side)[None].numpy()),
        sam_pixels=Pixels(lambda: sam_pixels(image, config.sam2_shape.image_size).numpy()),
        size=image.size,
        grids=(TokenGrid(config.cells_per_side, config.cells_per_side),),
    )


def clip_pixels(image: Image.Image, side: int) -> Tensor:
    """A picture stretched to (3, side, side) and normalised with CLIP's statistics."""
    pixels = to_tensor(image.resize((side, side), Image.Resampling.BICUBIC)).float().div(255)
    return pixels.sub(channels(CLIP_MEAN)).div(channels(CLIP_STD))

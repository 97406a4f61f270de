"""The image processor of SaSaSa2VA: of ten samples the first as it is, and the other nine as a mosaic."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sa2va_bento.model.internvl.config import InternVLConfig
from sa2va_bento.model.internvl.image_processor import tile_pixels
from sa2va_bento.model.pixels import content_key, sam_pixels
from sa2va_bento.model.sasasa2va.config import PART_FRAMES, PARTS, PICTURES
from sa2va_bento.types import Picture, Pixels, TokenGrid

SIDE = 448
"""Of a picture as InternViT sees it, in pixels."""
MOSAIC_SIDE = 3
"""Frames along one side of a mosaic."""


def clip_pictures(samples: Iterable[Image.Image]) -> Iterator[Image.Image]:
    """Samples of one size, in order, to the pictures (S, S) that stand for them: two for each ten. Few samples are
    alive at a time."""
    frames = iter(samples)
    while part := list(islice(frames, PART_FRAMES)):
        first, *others = part
        yield _small(first)
        yield _small(_mosaic(first.size, others))


def _mosaic(size: tuple[int, int], frames: Sequence[Image.Image]) -> Image.Image:
    """Frames row by row, at their full size: what is scaled down afterwards is the whole."""
    width, height = size
    mosaic = Image.new("RGB", (MOSAIC_SIDE * width, MOSAIC_SIDE * height))
    for place, frame in enumerate(frames):
        mosaic.paste(frame, (place % MOSAIC_SIDE * width, place // MOSAIC_SIDE * height))
    return mosaic


def _small(image: Image.Image) -> Image.Image:
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def process_image(
    config: InternVLConfig, image: Image.Image, regions: Sequence[NDArray[np.bool_]] = (), max_tiles: int | None = None
) -> Picture:
    """Prepares an RGB picture as the clip of one frame that it is to this family, whatever `max_tiles`. There are no
    regions: the family does not take them."""
    key = content_key(image)
    return Picture(
        key=key,
        tiles_key=f"{key}/clip",
        tile_count=PICTURES,
        tiles=Pixels(lambda: _tiles(image)),
        sam_pixels=Pixels(lambda: sam_pixels(image, config.sam2_shape.image_size).numpy()),
        size=image.size,
        grids=(TokenGrid(config.cells_per_side, config.cells_per_side),) * PICTURES,
        frames=PICTURES,
    )


def _tiles(image: Image.Image) -> NDArray[np.float32]:
    """(2 * parts, 3, S, S), the same for every part."""
    part = np.stack([tile_pixels(picture).numpy() for picture in clip_pictures([image] * PART_FRAMES)])
    return np.concatenate([part] * PARTS)

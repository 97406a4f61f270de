"""The image processor of the InternVL layout: a picture to tiles for the vision tower, region masks to image cells.

Everything here is arithmetic that the weights were trained with, so it follows upstream to the last bit; the sources
of the constants are the published code and InternVL's.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from sa2va_bento.model.internvl.config import InternVLConfig, TileSpec
from sa2va_bento.model.pixels import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    channels,
    content_key,
    sam_pixels,
    to_tensor,
)
from sa2va_bento.types import Picture, Pixels, TokenGrid


class TileGrid(NamedTuple):
    """Columns and rows of the tiles that a picture is cut into."""

    columns: int
    rows: int

    @property
    def tiles(self) -> int:
        return self.columns * self.rows


def process_image(
    config: InternVLConfig, image: Image.Image, regions: Sequence[NDArray[np.bool_]] = (), max_tiles: int | None = None
) -> Picture:
    """Prepares an RGB picture and its visual prompts (H, W). A region that misses every cell gets its nearest one."""
    cells, warnings = [], []
    for number, mask in enumerate(regions, start=1):
        covered = cells_of(mask, config.cells_per_side)
        if not covered.any():
            covered = nearest_cell(mask, config.cells_per_side)
            warnings.append(f"region{number} misses every sampling point; the image cell nearest to it stands for it")
        cells.append(covered.flatten().numpy())
    grid, key = tile_grid(image.size, config.tiles, max_tiles), content_key(image)
    count = tile_count(grid, config.tiles)
    return Picture(
        key=key,
        tiles_key=f"{key}/{grid.columns}x{grid.rows}",
        tile_count=count,
        tiles=Pixels(lambda: torch.stack([tile_pixels(tile) for tile in cut_tiles(image, config.tiles, grid)]).numpy()),
        sam_pixels=Pixels(lambda: sam_pixels(image, config.sam2_shape.image_size).numpy()),
        size=image.size,
        grids=(TokenGrid(config.cells_per_side, config.cells_per_side),) * count,
        region_cells=tuple(cells),
        warnings=tuple(warnings),
    )


def tile_grid(size: tuple[int, int], spec: TileSpec, max_tiles: int | None = None) -> TileGrid:
    """The grid that a picture of `size` is cut into."""
    return best_grid(*size, spec.image_size, min(max_tiles or spec.max, spec.max))


def tile_count(grid: TileGrid, spec: TileSpec) -> int:
    """Tiles of a grid, the thumbnail included."""
    return grid.tiles + 1 if spec.thumbnail and grid.tiles > 1 else grid.tiles


def cut_tiles(image: Image.Image, spec: TileSpec, grid: TileGrid) -> list[Image.Image]:
    """Resizes a picture to a grid of square tiles and cuts it, row by row; a thumbnail of the whole picture follows
    unless there is one tile only."""
    side, (columns, rows) = spec.image_size, grid
    resized = image.resize((columns * side, rows * side), Image.Resampling.BICUBIC)
    corners = [(x * side, y * side) for y in range(rows) for x in range(columns)]
    tiles = [resized.crop((x, y, x + side, y + side)) for x, y in corners]
    if tile_count(grid, spec) > len(tiles):
        tiles.append(image.resize((side, side), Image.Resampling.BICUBIC))
    return tiles


def best_grid(width: int, height: int, side: int, max_tiles: int) -> TileGrid:
    """InternVL's choice: the grid with the nearest aspect ratio; of equally near ones a later, larger one wins if the
    picture has more than half of its pixels."""
    ratio = width / height
    best, smallest = TileGrid(1, 1), float("inf")
    for grid in _grids(max_tiles):
        difference = abs(ratio - grid.columns / grid.rows)
        larger_is_worth_it = width * height > 0.5 * side * side * grid.tiles
        if difference < smallest or (difference == smallest and larger_is_worth_it):
            best, smallest = grid, difference
    return best


@cache
def _grids(max_tiles: int) -> tuple[TileGrid, ...]:
    # Among grids of the same area upstream's order is that of a Python set of int pairs built in this loop: CPython's
    # hash of them is fixed, so building the same set gives the same order.
    grids = {
        (i, j)
        for n in range(1, max_tiles + 1)
        for i in range(1, n + 1)
        for j in range(1, n + 1)
        if 1 <= i * j <= max_tiles
    }
    return tuple(sorted((TileGrid(*grid) for grid in grids), key=lambda grid: grid.tiles))


def tile_pixels(tile: Image.Image) -> Tensor:
    """A tile to normalised pixels (3, S, S) with ImageNet's statistics."""
    pixels = to_tensor(tile).float().div(255)
    return pixels.sub(channels(IMAGENET_MEAN)).div(channels(IMAGENET_STD))


def cells_of(mask: NDArray[np.bool_], cells: int) -> Tensor:
    """The cells (cells, cells) that a mask (H, W) covers, by nearest sampling as upstream does it: a small mask may
    cover none."""
    sampled = interpolate(torch.from_numpy(mask)[None, None].float(), size=(cells, cells), mode="nearest")
    return sampled[0, 0].bool()


def nearest_cell(mask: NDArray[np.bool_], cells: int) -> Tensor:
    """The one cell (cells, cells) that holds the centre of a non-empty mask (H, W)."""
    ys, xs = np.nonzero(mask)
    row = int(ys.mean() * cells / mask.shape[0])
    column = int(xs.mean() * cells / mask.shape[1])
    chosen = torch.zeros(cells, cells, dtype=torch.bool)
    chosen[row, column] = True
    return chosen

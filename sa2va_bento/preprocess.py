"""Pictures to tensors: tiles for the vision tower, pixels for SAM2, region masks to image cells.

Everything here is arithmetic that the weights were trained with, so it follows upstream to the last bit; the sources
of the constants are the published code and InternVL's.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from sa2va_bento.model.config import InternVLConfig, TileSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SAM_MEAN = tuple(torch.tensor(IMAGENET_MEAN, dtype=torch.bfloat16).tolist())
"""Upstream holds SAM2's statistics in bfloat16; the rounding is part of what the masks were trained on."""
SAM_STD = tuple(torch.tensor(IMAGENET_STD, dtype=torch.bfloat16).tolist())

T = TypeVar("T")
Grid = tuple[int, int]
"""Columns and rows of tiles."""


class Lazy(Generic[T]):
    """A value that is made once, by whichever thread asks first."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock = make, Lock()
        self._made: list[T] = []

    def __call__(self) -> T:
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]


@dataclass(frozen=True)
class PreparedPicture:
    """One picture for the model. Its tensors, float32 on the CPU, are made when they are first asked for.

    `tiles()` (N, 3, S, S) for the vision tower, the thumbnail last, N being `tile_count`; `grids` has the rows and
    columns of image tokens of each; `sam_pixels()` (3, M, M) for SAM2; `size` is the picture's (width, height). `key`
    names its content, `tiles_key` its content and cut. `region_cells` has a boolean (cells^2,) a region: the cells of
    the last tile it covers.
    """

    key: str
    tiles_key: str
    tile_count: int
    tiles: Lazy[Tensor]
    sam_pixels: Lazy[Tensor]
    size: tuple[int, int]
    grids: tuple[tuple[int, int], ...]
    region_cells: tuple[Tensor, ...] = ()
    warnings: tuple[str, ...] = ()


def prepare_picture(
    config: InternVLConfig, image: Image.Image, regions: Sequence[NDArray[np.bool_]] = (), max_tiles: int | None = None
) -> PreparedPicture:
    """Prepares an RGB picture and its visual prompts (H, W). A region that misses every cell gets its nearest one."""
    cells, warnings = [], []
    for number, mask in enumerate(regions, start=1):
        covered = cells_of(mask, config.cells_per_side)
        if not covered.any():
            covered = nearest_cell(mask, config.cells_per_side)
            warnings.append(f"region{number} is smaller than an image cell; its nearest cell stands for it")
        cells.append(covered.flatten())
    grid, key = tile_grid(image.size, config.tiles, max_tiles), content_key(image)
    count = tile_count(grid, config.tiles)
    return PreparedPicture(
        key=key,
        tiles_key=f"{key}/{grid[0]}x{grid[1]}",
        tile_count=count,
        tiles=Lazy(lambda: torch.stack([tile_pixels(tile) for tile in cut_tiles(image, config.tiles, grid)])),
        sam_pixels=Lazy(lambda: sam_pixels(image, config.sam2_shape.image_size)),
        size=image.size,
        grids=((config.cells_per_side, config.cells_per_side),) * count,
        region_cells=tuple(cells),
        warnings=tuple(warnings),
    )


def content_key(image: Image.Image) -> str:
    """Names a picture by its pixels: equal keys mean equal pictures."""
    digest = hashlib.sha256(b"%dx%d " % image.size)  # the fastest there is where processors compute it themselves
    digest.update(image.tobytes())
    return digest.hexdigest()


def tile_grid(size: tuple[int, int], spec: TileSpec, max_tiles: int | None = None) -> Grid:
    """The grid that a picture of `size` is cut into."""
    return best_grid(*size, spec.image_size, min(max_tiles or spec.max, spec.max))


def tile_count(grid: Grid, spec: TileSpec) -> int:
    """Tiles of a grid, the thumbnail included."""
    tiles = grid[0] * grid[1]
    return tiles + 1 if spec.thumbnail and tiles > 1 else tiles


def cut_tiles(image: Image.Image, spec: TileSpec, grid: Grid) -> list[Image.Image]:
    """Resizes a picture to a grid of square tiles and cuts it, row by row; a thumbnail of the whole picture follows
    unless there is one tile only."""
    side, (columns, rows) = spec.image_size, grid
    resized = image.resize((columns * side, rows * side), Image.Resampling.BICUBIC)
    corners = [(x * side, y * side) for y in range(rows) for x in range(columns)]
    tiles = [resized.crop((x, y, x + side, y + side)) for x, y in corners]
    if tile_count(grid, spec) > len(tiles):
        tiles.append(image.resize((side, side), Image.Resampling.BICUBIC))
    return tiles


def best_grid(width: int, height: int, side: int, max_tiles: int) -> Grid:
    """InternVL's choice: the grid with the nearest aspect ratio; of equally near ones a later, larger one wins if the
    picture has more than half of its pixels."""
    ratio = width / height
    best, smallest = (1, 1), float("inf")
    for columns, rows in _grids(max_tiles):
        difference = abs(ratio - columns / rows)
        larger_is_worth_it = width * height > 0.5 * side * side * columns * rows
        if difference < smallest or (difference == smallest and larger_is_worth_it):
            best, smallest = (columns, rows), difference
    return best


@cache
def _grids(max_tiles: int) -> tuple[Grid, ...]:
    # Among grids of the same area upstream's order is that of a Python set of int pairs built in this loop: CPython's
    # hash of them is fixed, so building the same set gives the same order.
    grids = {
        (i, j)
        for n in range(1, max_tiles + 1)
        for i in range(1, n + 1)
        for j in range(1, n + 1)
        if 1 <= i * j <= max_tiles
    }
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def tile_pixels(tile: Image.Image) -> Tensor:
    """A tile to normalised pixels (3, S, S) with ImageNet's statistics."""
    pixels = _to_tensor(tile).float().div(255)
    return pixels.sub(_channels(IMAGENET_MEAN)).div(_channels(IMAGENET_STD))


def sam_pixels(image: Image.Image, side: int) -> Tensor:
    """A picture stretched to (3, side, side) and normalised with the bfloat16-rounded statistics."""
    pixels = _to_tensor(image.resize((side, side), Image.Resampling.BICUBIC)).float().div(255)
    return pixels.sub(_channels(SAM_MEAN)).div(_channels(SAM_STD))


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _channels(values: Sequence[float]) -> Tensor:
    return torch.tensor(values)[:, None, None]


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

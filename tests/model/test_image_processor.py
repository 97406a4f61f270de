import numpy as np
import pytest
import torch
from PIL import Image

from sa2va_bento.model.internvl.config import TileSpec
from sa2va_bento.model.internvl.image_processor import (
    TileGrid,
    best_grid,
    cells_of,
    cut_tiles,
    nearest_cell,
    tile_count,
    tile_grid,
)
from sa2va_bento.model.pixels import sam_pixels

PUBLISHED = TileSpec()


@pytest.mark.parametrize(
    ("size", "tiles"),
    [
        ((448, 448), 1),
        ((512, 512), 1),
        ((640, 480), 13),
        ((1000, 1000), 10),
        ((640, 427), 7),
        ((4000, 10), 13),
        ((1280, 720), 9),
        ((1, 1), 1),
        ((10, 4000), 13),
    ],
)
def test_number_of_tiles_is_upstreams(size: tuple[int, int], tiles: int) -> None:
    grid = tile_grid(size, PUBLISHED)
    assert tile_count(grid, PUBLISHED) == len(cut_tiles(Image.new("RGB", size), PUBLISHED, grid)) == tiles


def test_fewer_tiles_on_request() -> None:
    for most in range(1, 13):
        columns, rows = best_grid(640, 480, 448, most)
        assert columns * rows <= most
    assert tile_grid((640, 480), PUBLISHED, max_tiles=1) == (1, 1)


def test_more_tiles_than_the_model_knows_are_not_cut() -> None:
    assert tile_grid((640, 480), TileSpec(224, 1, thumbnail=False), max_tiles=12) == (1, 1)


def test_tiles_run_row_by_row_and_end_with_the_thumbnail() -> None:
    picture = Image.new("RGB", (896, 448), (10, 0, 0))
    picture.paste((20, 0, 0), (448, 0, 896, 448))
    left, right, thumbnail = cut_tiles(picture, PUBLISHED, TileGrid(2, 1))
    assert (left.getpixel((224, 224)), right.getpixel((224, 224))) == ((10, 0, 0), (20, 0, 0))
    assert thumbnail.getpixel((10, 10)) == (10, 0, 0)
    assert thumbnail.getpixel((440, 10)) == (20, 0, 0)


def test_sam_pixels_use_bfloat16_rounded_statistics() -> None:
    black = sam_pixels(Image.new("RGB", (5, 9)), 32)
    assert black.shape == (3, 32, 32)
    mean, std = (0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375)
    assert torch.equal(black[:, 0, 0], -torch.tensor(mean) / torch.tensor(std))


def test_a_region_smaller_than_a_cell_gets_the_cell_it_lies_in() -> None:
    mask = np.zeros((480, 640), bool)
    mask[5:9, 635:639] = True
    assert not cells_of(mask, 16).any()
    assert nearest_cell(mask, 16).nonzero().tolist() == [[0, 15]]

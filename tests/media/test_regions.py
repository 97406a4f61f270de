"""Visual prompts: what becomes of each shape, and what is refused by name."""

import math
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError
from sa2va_bento.media.mask_formats import encode_png, encode_rle
from sa2va_bento.media.regions import MOST_CROSSINGS, box_to_mask, png_to_mask, polygon_to_mask, rle_to_mask
from tests.pictures import b64, encode

SIZE = (6, 4)
FIELD = "regions[2].mask"


@pytest.mark.parametrize(
    ("box", "columns", "rows"),
    [
        ([1, 1, 2, 2], (1, 3), (1, 3)),
        ([0, 0, 6, 4], (0, 6), (0, 4)),
        ([1.6, 0.2, 0.2, 0.2], (1, 2), (0, 1)),
        ([0.5, 0.5, 1, 1], (0, 2), (0, 2)),
        ([-1, 0, 2, 2], (0, 1), (0, 2)),
        ([5, 0, 2, 2], (5, 6), (0, 2)),
        ([0, 3.5, 1, 1], (0, 1), (3, 4)),
        ([-1e-9, -1e-9, 6 + 2e-9, 4 + 2e-9], (0, 6), (0, 4)),
    ],
)
def test_a_box_covers_every_pixel_it_touches(box: list[float], columns: tuple[int, int], rows: tuple[int, int]) -> None:
    wanted = np.zeros((4, 6), bool)
    wanted[slice(*rows), slice(*columns)] = True
    assert (box_to_mask(box, SIZE, FIELD) == wanted).all()


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 0, 1],
        [0, 0, 1, -1],
        [-1.01, 0, 2, 2],
        [5, 0, 2.01, 2],
        [0, 3.5, 1, 1.51],
        [9, 9, 1, 1],
        [6, 0, 1, 1],
        [-1, -1, 1e-20, 1e-20],
        [float("nan"), 0, 1, 1],
        [0, 0, float("inf"), 1],
    ],
)
def test_a_box_outside_or_empty_is_refused_by_name(box: list[float]) -> None:
    with pytest.raises(BadRequestError, match=r"^regions\[2\]\.mask: "):
        box_to_mask(box, SIZE, FIELD)


def test_a_polygon_holds_the_pixels_whose_centres_it_holds() -> None:
    triangle = polygon_to_mask([(0, 0), (6, 0), (0, 4)], SIZE, FIELD)
    wanted = [[(x + 0.5) / 6 + (y + 0.5) / 4 < 1 for x in range(6)] for y in range(4)]
    assert triangle.tolist() == wanted


def test_a_polygon_may_run_either_way_and_along_edges() -> None:
    square = [(1.0, 1.0), (4.0, 1.0), (4.0, 3.0), (1.0, 3.0)]
    wanted = box_to_mask([1, 1, 3, 2], SIZE, FIELD)
    assert (polygon_to_mask(square, SIZE, FIELD) == wanted).all()
    assert (polygon_to_mask(square[::-1], SIZE, FIELD) == wanted).all()


@pytest.mark.parametrize(
    "points",
    [
        [(0, 0), (7.01, 0), (0, 4)],
        [(-1.01, 0), (1, 0), (0, 4)],
        [(0, 0), (1, -1.01), (0, 4)],
        [(0, 0), (1, 0), (0, 5.01)],
        [(float("nan"), 0), (1, 0), (0, 4)],
        [(1, 1), (1, 1), (1, 1)],
        [(0, 0), (6, 4), (0, 0)],
        [(6, 0), (7, 0), (7, 4), (6, 4)],
    ],
)
def test_a_polygon_outside_or_empty_is_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(BadRequestError, match=r"^regions\[2\]\.mask: "):
        polygon_to_mask(points, SIZE, FIELD)


Corners = list[tuple[float, float]]


def test_a_polygon_is_clipped_to_the_picture_it_leaves_by_a_pixel() -> None:
    around = [(-1.0, -1.0), (7.0, -1.0), (7.0, 5.0), (-1.0, 5.0)]
    assert polygon_to_mask(around, SIZE, FIELD).all()
    triangle = [(-1.0, -1.0), (7.0, -1.0), (-1.0, 5.0)]
    wanted = [[(x + 1.5) / 8 + (y + 1.5) / 6 < 1 for x in range(6)] for y in range(4)]
    assert polygon_to_mask(triangle, SIZE, FIELD).tolist() == wanted


def edge_by_edge(corners: Corners, size: tuple[int, int]) -> np.ndarray:
    """The even-odd rule at pixel centres, one edge and one row after the other."""
    mask = np.zeros(size[::-1], bool)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        (y0, x0), (y1, x1) = sorted([(y0, x0), (y1, x1)], key=lambda end: end[0])
        for row in range(math.ceil(y0 - 0.5), math.ceil(y1 - 0.5)):
            crossing = x0 + (row + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            mask[row, max(0, math.ceil(crossing - 0.5)) :] ^= True
    return mask


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.lists(st.tuples(st.integers(0, 48), st.integers(0, 48)), min_size=1, max_size=12),
    st.sampled_from([1, 2, 4, 48]),
)
def test_any_polygon_is_filled_by_the_even_odd_rule(
    size: tuple[int, int], places: list[tuple[int, int]], steps: int
) -> None:
    corners = [(x * steps // 48 / steps * size[0], y * steps // 48 / steps * size[1]) for x, y in places]
    wanted = edge_by_edge(corners, size)
    if wanted.any():
        assert (polygon_to_mask(corners, size, FIELD) == wanted).all()
    else:
        with pytest.raises(BadRequestError, match="no pixel"):
            polygon_to_mask(corners, size, FIELD)


def zigzag(points: int, size: tuple[int, int]) -> Corners:
    """Down and up the whole picture, from left to right."""
    return [(i * size[0] / points, float(size[1] * (i % 2))) for i in range(points)]


def test_polygons_take_a_bounded_time() -> None:
    begun = time.monotonic()
    with pytest.raises(PayloadTooLargeError, match=r"^regions\[2\]\.mask: its edges cross 196605000 rows"):
        polygon_to_mask(zigzag(3000, (762, 65_535)), (762, 65_535), FIELD)
    assert time.monotonic() - begun < 0.3
    most = zigzag(MOST_CROSSINGS // 65_535 - 1, (762, 65_535))
    assert polygon_to_mask(most, (762, 65_535), FIELD).any()
    numbers = random.Random(0)
    many = [(numbers.random() * 40, numbers.random() * 30) for _ in range(50_000)]
    assert polygon_to_mask(many, (40, 30), FIELD).any()
    assert time.monotonic() - begun < 5


@settings(max_examples=80, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 90), st.integers(1, 90)), elements=st.booleans()))
def test_masks_come_back_from_what_the_service_sends(mask: np.ndarray) -> None:
    mask[0, 0] = True
    size = (mask.shape[1], mask.shape[0])
    assert (rle_to_mask(mask.shape, encode_rle(mask), size, FIELD) == mask).all()
    assert (png_to_mask(encode_png(mask), size, FIELD) == mask).all()


def test_a_list_of_runs_is_read_column_by_column() -> None:
    mask = rle_to_mask([4, 6], [1, 2, 21], SIZE, FIELD)
    assert np.argwhere(mask).tolist() == [[1, 0], [2, 0]]


def test_large_runs_survive_the_packing() -> None:
    mask = np.ones((2000, 3000), bool)
    mask[:, :1000] = False
    assert (rle_to_mask(mask.shape, encode_rle(mask), (3000, 2000), FIELD) == mask).all()


@pytest.mark.parametrize(
    ("size", "counts"),
    [
        ([6, 4], [0, 24]),
        ([4, 6], [0, 23]),
        ([4, 6], [0, 25]),
        ([4, 6], [-1, 25]),
        ([4, 6], []),
        ([4, 6], [2**62, 2**62, 2**62, 2**62 + 24]),
        ([4, 6], [2**70]),
        ([4, 6], [24]),
        ([4, 6], ""),
        ([4, 6], "`"),
        ([4, 6], "ooooooooooo0"),
        ([4, 6], "~"),
        ([4, 6], " "),
        ([4, 6], "ä"),
        ([4, 6], "1"),
        ([4, 6], "0" * 1000),
    ],
)
def test_runs_that_do_not_fit_are_refused(size: list[int], counts: str | list[int]) -> None:
    with pytest.raises(BadRequestError, match=r"^regions\[2\]\.mask: "):
        rle_to_mask(size, counts, SIZE, FIELD)


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=12))
def test_any_text_of_counts_is_refused_or_means_what_pycocotools_says(counts: str) -> None:
    try:
        mask = rle_to_mask([4, 6], counts, SIZE, FIELD)
    except BadRequestError:
        return
    assert (coco.decode({"size": [4, 6], "counts": counts}) == mask).all()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "image",
    [
        Image.new("1", SIZE, 1),
        Image.new("L", SIZE, 1),
        Image.new("I;16", SIZE, 1),
        Image.new("RGB", SIZE, "red"),
        Image.new("RGBA", SIZE, "red"),
    ],
    ids=lambda image: image.mode,
)
def test_any_png_that_is_not_black_is_inside(image: Image.Image) -> None:
    assert png_to_mask(b64(encode(image)), SIZE, FIELD).all()


@pytest.mark.parametrize(
    "text",
    [
        b64(encode(Image.new("L", (4, 6), 255))),
        b64(encode(Image.new("L", (600, 400), 255))),
        b64(encode(Image.new("L", SIZE, 0))),
        b64(encode(Image.new("L", SIZE, 255), "JPEG")),
        b64(encode(Image.effect_noise(SIZE, 50))[:60]),
        b64(b"nonsense"),
        "???",
        "",
    ],
    ids=["turned", "too large", "black", "JPEG", "truncated", "no picture", "no base64", "empty"],
)
def test_a_png_that_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match=r"^regions\[2\]\.mask: "):
        png_to_mask(text, SIZE, FIELD)


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "RGB", "LA"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_damaged_png_is_refused(mode: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 2**16, (40, 60), np.uint16)
    image = Image.fromarray(noise) if mode == "I;16" else Image.fromarray((noise >> 8).astype(np.uint8)).convert(mode)
    data = encode(image)
    with pytest.raises(BadRequestError, match=r"^regions\[2\]\.mask: the PNG is truncated or damaged"):
        png_to_mask(b64(data[: int(len(data) * share)]), (60, 40), FIELD)
    broken = data[:60] + bytes(20) + data[80:]
    with pytest.raises(BadRequestError, match=r"^regions\[2\]\.mask: "):
        png_to_mask(b64(broken), (60, 40), FIELD)


@pytest.mark.parametrize("data", [b"II*\0", b"\0\0\0\x1cftypavif", b"%PDF-1.7"])
def test_other_files_are_no_mask(data: bytes) -> None:
    with pytest.raises(BadRequestError, match=r"^regions\[2\]\.mask: a mask must be a PNG"):
        png_to_mask(b64(data), SIZE, FIELD)

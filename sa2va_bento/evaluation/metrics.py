"""The measures, to the letter of the scripts that published them.

- cIoU and gIoU of referring segmentation: the pixels of all expressions together, and the mean over expressions, where
  an expression without any pixel on either side counts as right.
- J and F of DAVIS (Perazzi et al., 2016): the mean over frames of the masks' IoU, and of the F-measure of their
  outlines within a tolerance of 0.8 % of the picture's diagonal.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sa2va_bento.evaluation.questions import Masks, Truth

BOUND = 0.008
"""Of the diagonal: how far two outlines may be apart to be the same."""
LITTLE = 1e-5
"""Upstream divides by the union and this."""


class Overlap(NamedTuple):
    """Pixels of both masks, and of either."""

    intersection: int
    union: int

    @property
    def iou(self) -> float:
        return self.intersection / (self.union + LITTLE) if self.union else 1.0


def overlap(found: Masks, truth: Truth) -> Overlap:
    """Of masks (1, H, W)."""
    counted = np.ones_like(truth.masks) if truth.ignored is None else ~truth.ignored
    return Overlap(int((found & truth.masks & counted).sum()), int(((found | truth.masks) & counted).sum()))


def ciou(overlaps: Sequence[Overlap]) -> float:
    """Cumulative IoU."""
    return sum(one.intersection for one in overlaps) / (sum(one.union for one in overlaps) + 1e-10)


def giou(overlaps: Sequence[Overlap]) -> float:
    """The mean of the IoUs."""
    return sum(one.iou for one in overlaps) / max(1, len(overlaps))


def region_similarity(found: Masks, truth: Masks) -> float:
    """J of masks (T, H, W)."""
    unions, both = (found | truth).sum(axis=(1, 2)), (found & truth).sum(axis=(1, 2))
    return float(np.where(unions == 0, 1.0, both / np.maximum(unions, 1)).mean())


def contour_accuracy(found: Masks, truth: Masks) -> float:
    """F of masks (T, H, W)."""
    return float(np.mean([_outline_f(*pair) for pair in zip(found, truth, strict=True)]))


def _outline_f(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    radius = math.ceil(BOUND * math.hypot(*found.shape))
    outline, right = outline_of(found), outline_of(truth)
    drawn, wanted = int(outline.sum()), int(right.sum())
    if not drawn or not wanted:
        return float(drawn == wanted)
    precision = (outline & dilated(right, radius)).sum() / drawn
    recall = (right & dilated(outline, radius)).sum() / wanted
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def outline_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels (H, W) that differ from the one to the right, below, or both."""
    right, below, both = mask.copy(), mask.copy(), mask.copy()
    right[:, :-1], below[:-1], both[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    found = (mask ^ right) | (mask ^ below) | (mask ^ both)
    found[-1], found[:, -1] = mask[-1] ^ right[-1], mask[:, -1] ^ below[:, -1]
    found[-1, -1] = False
    return found


def dilated(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """By a disk, of pixels whose centres are within the radius: for each of its rows, a run along the mask's rows."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    padded = np.pad(mask, radius)
    sums = np.pad(padded.cumsum(axis=1), ((0, 0), (1, 0)))
    for shift in range(-radius, radius + 1):
        half = math.isqrt(radius * radius - shift * shift)
        rows = sums[radius + shift : radius + shift + height]
        first = radius - half
        found |= rows[:, first + 2 * half + 1 :][:, :width] > rows[:, first : first + width]
    return found

"""Masks: from the model's low-resolution logits to the picture's size, and from there to what clients read.

A mask is a boolean array (H, W) of the displayed picture everywhere in this project; the formats (COCO RLE,
PNG, polygons) exist at the edge only.
"""

import base64
import io
import math
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

if TYPE_CHECKING:
    import torch

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

POLYGON_TOLERANCE = 1.0
"""Pixels by which a simplified outline may leave the outline of the mask."""


def low_res_to_mask(
    logits: "torch.Tensor | NDArray[np.floating]",
    sam_size: int,
    size: tuple[int, int],
    threshold: float = 0.5,
) -> Mask:
    """Scales mask logits to the picture as the original model does and cuts them at a probability.

    Two bilinear steps, low resolution to `sam_size` x `sam_size` and that to the picture: one step gives
    another boundary. It runs on the device that holds the logits.

    Args:
        logits: (h, w), floats.
        sam_size: Side of the square that SAM2 sees, in pixels.
        size: (W, H) of the picture, as in `Image.size`.
        threshold: Probability in [0, 1] above which a pixel belongs to the mask.

    Returns:
        Boolean (H, W).
    """
    import torch  # kept out of the module's imports: the supervisor of the workers needs no torch
    from torch.nn.functional import interpolate

    width, height = size
    with torch.inference_mode():
        grid = torch.as_tensor(logits).float()[None, None]  # (1, 1, h, w)
        grid = interpolate(grid, (sam_size, sam_size), mode="bilinear", align_corners=False)
        grid = interpolate(grid, (height, width), mode="bilinear", align_corners=False)
        return (grid[0, 0] > _logit(threshold)).cpu().numpy()


def _logit(probability: float) -> float:
    if probability <= 0:
        return -math.inf
    if probability >= 1:
        return math.inf
    return math.log(probability / (1 - probability))


def encode_rle(mask: Mask) -> str:
    """COCO's compressed run lengths of a mask (H, W), ASCII; `pycocotools.mask.decode` takes them as they are."""
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return cast(bytes, rle["counts"]).decode("ascii")


def encode_png(mask: Mask) -> str:
    """A one-channel PNG of a mask (H, W) as a data URL: 255 inside, 0 outside."""
    buffer = io.BytesIO()
    Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


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

"""Mask logits to masks: from the low resolution of SAM2's decoder to the picture's size, cut at a probability."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate


def low_res_to_mask(
    logits: "torch.Tensor | NDArray[np.floating]",
    sam_size: int,
    size: tuple[int, int],
    threshold: float = 0.5,
) -> NDArray[np.bool_]:
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
    with torch.inference_mode():
        return (_at_size(logits, sam_size, size) > _logit(threshold)).cpu().numpy()


def low_res_to_soft_mask(
    logits: "torch.Tensor | NDArray[np.floating]", sam_size: int, size: tuple[int, int], threshold: float = 0.5
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """`low_res_to_mask`, and the probabilities that it cuts: (H, W), rounded to 255ths."""
    with torch.inference_mode():
        grid = _at_size(logits, sam_size, size)
        soft = grid.sigmoid().mul_(255).round_().to(torch.uint8)
        return (grid > _logit(threshold)).cpu().numpy(), soft.cpu().numpy()


def _at_size(logits: "torch.Tensor | NDArray[np.floating]", sam_size: int, size: tuple[int, int]) -> torch.Tensor:
    """Logits (h, w) at the picture's size: (H, W)."""
    width, height = size
    grid = torch.as_tensor(logits).float()[None, None]  # (1, 1, h, w)
    grid = interpolate(grid, (sam_size, sam_size), mode="bilinear", align_corners=False)
    return interpolate(grid, (height, width), mode="bilinear", align_corners=False)[0, 0]


def _logit(probability: float) -> float:
    if probability <= 0:
        return -math.inf
    if probability >= 1:
        return math.inf
    return math.log(probability / (1 - probability))

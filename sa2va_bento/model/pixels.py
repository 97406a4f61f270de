"""What the image processors of all families share: a picture's key, and its pixels for SAM2.

Arithmetic that the weights were trained with, to the last bit; the sources of the constants are the published code.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)


IMAGENET_STD = (0.229, 0.224, 0.225)


SAM_MEAN = tuple(torch.tensor(IMAGENET_MEAN, dtype=torch.bfloat16).tolist())
"""Upstream holds SAM2's statistics in bfloat16; the rounding is part of what the masks were trained on."""


SAM_STD = tuple(torch.tensor(IMAGENET_STD, dtype=torch.bfloat16).tolist())


def content_key(image: Image.Image) -> str:
    """Names a picture by its pixels: equal keys mean equal pictures."""
    digest = hashlib.sha256(b"%dx%d " % image.size)  # the fastest there is where processors compute it themselves
    digest.update(image.tobytes())
    return digest.hexdigest()


def sam_pixels(image: Image.Image, side: int) -> Tensor:
    """A picture stretched to (3, side, side) and normalised with the bfloat16-rounded statistics."""
    pixels = to_tensor(image.resize((side, side), Image.Resampling.BICUBIC)).float().div(255)
    return pixels.sub(channels(SAM_MEAN)).div(channels(SAM_STD))


def to_tensor(image: Image.Image) -> Tensor:
    """Bytes (3, H, W) of an RGB picture."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def channels(values: Sequence[float]) -> Tensor:
    """A number for each channel (3, 1, 1)."""
    return torch.tensor(values)[:, None, None]

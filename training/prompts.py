"""Stand-in prompts for SAM2's mask decoder, before a language model exists that could write them.

A prompt is the sum of a colour's, a shape's and (when several objects fit the words) a place's embedding. The decoder
learns to obey them; the language stage then teaches `[SEG]` to land on the same embeddings, and the joint stage lets
the two meet on real masks. None of this ships.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.scenes import COLORS, SHAPES

ANY_COLOR, ANY_SHAPE = len(COLORS), len(SHAPES)
FREQUENCIES = 4


@dataclass(frozen=True)
class Words:
    """P references: `color` (P,) with 6 for any, `shape` (P,) with 4 for any, `place` (P, 2) with x, y in shares of the
    picture, `has_place` (P,) 1 where the place counts."""

    color: Tensor
    shape: Tensor
    place: Tensor
    has_place: Tensor


class PromptTable(nn.Module):
    """References to prompt embeddings (P, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.color = nn.Embedding(len(COLORS) + 1, width)
        self.shape = nn.Embedding(len(SHAPES) + 1, width)
        self.place = nn.Sequential(nn.Linear(4 * FREQUENCIES + 2, width), nn.GELU(), nn.Linear(width, width))
        nn.init.normal_(self.color.weight, std=0.5)
        nn.init.normal_(self.shape.weight, std=0.5)

    def forward(self, words: Words) -> Tensor:
        place = self.place(_waves(words.place)) * words.has_place[:, None]
        return self.color(words.color) + self.shape(words.shape) + place


def _waves(place: Tensor) -> Tensor:
    """(P, 2) to the coordinates and their sines and cosines, (P, 18)."""
    angles = torch.cat([place * math.pi * 2**k for k in range(FREQUENCIES)], -1)
    return torch.cat([place - 0.5, angles.sin(), angles.cos()], -1)

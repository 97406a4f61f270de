"""Stand-in prompts for SAM2's mask decoder, before a language model exists that could write them.

A prompt is the sum of the embeddings of an object's colour, shape and place. The decoder learns to obey them; the
language stage then teaches `[SEG]` to land on the same embeddings: whatever the words were ("the largest one"), it is
the language model that finds the object, and SAM2 that draws it. None of this ships.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data.shapes import COLORS, SHAPES

FREQUENCIES = 4
PLACE_WAVES = 4 * FREQUENCIES + 2
PART_LENGTH = 0.5


@dataclass(frozen=True)
class Words:
    """P references: `color` (P,), `shape` (P,), and `place` (P, 2), the centre's x, y in shares of the picture."""

    color: Tensor
    shape: Tensor
    place: Tensor


class PromptTable(nn.Module):
    """References to prompt embeddings (P, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.color = nn.Embedding(len(COLORS), width)
        self.shape = nn.Embedding(len(SHAPES), width)
        self.place = nn.Sequential(nn.Linear(PLACE_WAVES, width), nn.GELU(), nn.Linear(width, width))
        nn.init.normal_(self.color.weight, std=0.5)
        nn.init.normal_(self.shape.weight, std=0.5)

    def forward(self, words: Words) -> Tensor:
        """(P, width). Each of the three has the same length: none is drowned by the others, for whoever has to hit the
        sum as for whoever reads it."""
        parts = (self.color(words.color), self.shape(words.shape), self.place(place_waves(words.place)))
        return torch.stack([functional.rms_norm(part, part.shape[-1:]) for part in parts]).sum(0) * PART_LENGTH


def place_waves(place: Tensor) -> Tensor:
    """(P, 2) to the coordinates and their sines and cosines, (P, `PLACE_WAVES`)."""
    angles = torch.cat([place * math.pi * 2**k for k in range(FREQUENCIES)], -1)
    return torch.cat([place - 0.5, angles.sin(), angles.cos()], -1)

"""Sa2VA in the InternVL layout: InternViT, a projector, a language model and SAM2, all in-tree transformers modules."""

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import InternVLVisionModel

from sa2va_bento.model.causal import CausalSa2VA
from sa2va_bento.model.internvl.config import InternVLConfig
from sa2va_bento.types import TokenGrid


class InternVLSa2VA(CausalSa2VA):
    """The modules of a checkpoint under its own part names."""

    config: InternVLConfig
    has_tiles = True

    def __init__(self, config: InternVLConfig) -> None:
        super().__init__(config)
        vision_width, width = config.vision.hidden_size, config.llm.hidden_size
        self.vision_model = InternVLVisionModel(config.vision)
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(4 * vision_width), nn.Linear(4 * vision_width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.add_language_model()
        self.add_grounding()

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        """Tiles (N, 3, S, S) to image tokens (N, cells, H): InternViT, pixel shuffle, projector."""
        patches = self.vision_model(pixel_values=pixels).last_hidden_state[:, 1:]
        return self.mlp1(pixel_shuffle(patches, self.config.cells_per_side))

    def encode_pictures(self, pixels: Tensor, grids: Sequence[Sequence[TokenGrid]]) -> list[Tensor]:
        """A grid is a tile."""
        return list(self.encode_tiles(pixels).split([len(tiles) for tiles in grids]))


def pixel_shuffle(patches: Tensor, cells: int) -> Tensor:
    """Folds each 2x2 block of patches (N, 4 * cells^2, C) into one cell (N, cells^2, 4C); InternVL's v2."""
    count, _, channels = patches.shape
    blocks = patches.view(count, cells, 2, cells, 2, channels).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(count, cells * cells, 4 * channels)

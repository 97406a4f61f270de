"""Sa2VA in the LLaVA-1.5 layout: CLIP, a projector, Llama and SAM2, all in-tree transformers modules."""

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import CLIPVisionModel

from sa2va_bento.model.causal import CausalSa2VA
from sa2va_bento.model.llava.config import LlavaConfig
from sa2va_bento.types import TokenGrid


class Projector(nn.Module):
    """LLaVA's projector: CLIP's features to the width of the language model, under its published names."""

    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__()
        self.linear_1, self.act = nn.Linear(vision_width, width), nn.GELU()
        self.linear_2 = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear_2(self.act(self.linear_1(features)))


class LlavaSa2VA(CausalSa2VA):
    """The modules of a checkpoint."""

    config: LlavaConfig
    has_tiles = True

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        self.vision_tower = CLIPVisionModel(config.vision)
        self.projector = Projector(config.vision.hidden_size, config.llm.hidden_size)
        self.add_language_model()
        self.add_grounding()

    def encode_pictures(self, pixels: Tensor, grids: Sequence[Sequence[TokenGrid]]) -> list[Tensor]:
        """A grid is a picture, or a frame: (N, cells, H) each. The class token is left out."""
        patches = self.vision_tower(pixel_values=pixels).last_hidden_state[:, 1:]
        return list(self.projector(patches).split([len(images) for images in grids]))

"""Sa2VA in the InternVL layout: InternViT, a projector, a language model and SAM2, all in-tree transformers modules."""

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, InternVLVisionModel
from transformers.cache_utils import Cache

from sa2va_bento.model.attention import RAGGED, RaggedAttention, unused_mask
from sa2va_bento.model.base import PromptInputs, Sa2VA
from sa2va_bento.model.internvl.config import InternVLConfig
from sa2va_bento.types import TokenGrid


class InternVLSa2VA(Sa2VA):
    """The modules of a checkpoint under its own part names."""

    config: InternVLConfig

    def __init__(self, config: InternVLConfig) -> None:
        super().__init__(config)
        vision_width, width = config.vision.hidden_size, config.llm.hidden_size
        self.vision_model = InternVLVisionModel(config.vision)
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(4 * vision_width), nn.Linear(4 * vision_width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.language_model = AutoModelForCausalLM.from_config(config.llm, attn_implementation=RAGGED)
        self.add_grounding()

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        """Tiles (N, 3, S, S) to image tokens (N, cells, H): InternViT, pixel shuffle, projector."""
        patches = self.vision_model(pixel_values=pixels).last_hidden_state[:, 1:]
        return self.mlp1(pixel_shuffle(patches, self.config.cells_per_side))

    def encode_pictures(self, pixels: Tensor, grids: Sequence[Sequence[TokenGrid]]) -> list[Tensor]:
        """A grid is a tile."""
        return list(self.encode_tiles(pixels).split([len(tiles) for tiles in grids]))

    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        return self.language_model.get_input_embeddings()(input_ids)

    def embed(self, input_ids: Tensor, image_features: Tensor | None, image_token_id: int) -> Tensor:
        """Token embeddings (1, T, H) with the image features (K, H) put at the K image tokens, in order."""
        embeddings = self.embed_tokens(input_ids)
        if image_features is None:
            return embeddings
        places = (input_ids == image_token_id).unsqueeze(-1).expand_as(embeddings)
        return embeddings.masked_scatter(places, image_features.to(embeddings.dtype))

    def read_prompt(
        self, input_ids: Tensor, image_tokens: Tensor | None, grids: Sequence[TokenGrid], image_token_id: int
    ) -> PromptInputs:
        ids = input_ids.to(self.language_model.device, non_blocking=True)
        return PromptInputs(self.embed(ids[None], image_tokens, image_token_id)[0])

    def language_body(
        self,
        embeddings: Tensor,
        cache: Cache,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """The last layer after the final norm."""
        return self.language_model.model(
            inputs_embeds=embeddings,
            past_key_values=cache,
            use_cache=True,
            attention_mask=attention_mask,
            position_ids=position_ids,
        ).last_hidden_state

    @property
    def text_model(self) -> nn.Module:
        return self.language_model.model

    def language_step(
        self, embeddings: Tensor, positions: Tensor, attention: RaggedAttention, wanted: Tensor | None = None
    ) -> Tensor:
        if self.decoder:
            return self.decoder(embeddings, positions, attention, wanted=wanted)
        hidden = self.language_model.model(
            inputs_embeds=embeddings[None],
            use_cache=False,
            attention_mask=unused_mask(embeddings),
            position_ids=positions[None],
            ragged=attention,
        ).last_hidden_state[0]
        return hidden if wanted is None else hidden[wanted]

    def language_head(self, hidden: Tensor) -> Tensor:
        return self.language_model.lm_head(hidden)

    def tie_head(self) -> None:
        self.language_model.tie_weights()


def pixel_shuffle(patches: Tensor, cells: int) -> Tensor:
    """Folds each 2x2 block of patches (N, 4 * cells^2, C) into one cell (N, cells^2, 4C); InternVL's v2."""
    count, _, channels = patches.shape
    blocks = patches.view(count, cells, 2, cells, 2, channels).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(count, cells * cells, 4 * channels)

"""Sa2VA in the InternVL layout: InternViT, a projector, a language model and SAM2, all in-tree transformers modules."""

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, InternVLVisionModel, Sam2VideoModel
from transformers.cache_utils import Cache

from sa2va_bento.model.config import Sa2VAConfig


class InternVLSa2VA(nn.Module):
    """The modules of a checkpoint under its own part names. Nothing in here disables gradients or picks a device."""

    def __init__(self, config: Sa2VAConfig) -> None:
        super().__init__()
        self.config = config
        vision_width, width = config.vision.hidden_size, config.llm.hidden_size
        self.vision_model = InternVLVisionModel(config.vision)
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(4 * vision_width), nn.Linear(4 * vision_width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.language_model = AutoModelForCausalLM.from_config(config.llm)
        self.grounding_encoder = Sam2VideoModel(config.sam2)
        self.text_hidden_fcs = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.sam2_shape.d_model)
        )

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        """Tiles (N, 3, S, S) to image tokens (N, cells, H): InternViT, pixel shuffle, projector."""
        patches = self.vision_model(pixel_values=pixels).last_hidden_state[:, 1:]
        return self.mlp1(pixel_shuffle(patches, self.config.cells_per_side))

    def embed(self, input_ids: Tensor, image_features: Tensor | None, image_token_id: int) -> Tensor:
        """Token embeddings (1, T, H) with the image features (K, H) put at the K image tokens, in order."""
        embeddings = self.language_model.get_input_embeddings()(input_ids)
        if image_features is None:
            return embeddings
        places = (input_ids == image_token_id).unsqueeze(-1).expand_as(embeddings)
        return embeddings.masked_scatter(places, image_features.to(embeddings.dtype))

    def language_body(self, embeddings: Tensor, cache: Cache, **kwargs: Tensor) -> Tensor:
        """Runs embeddings (B, T, H) on top of the cache, which grows by T: the last layer after the final norm
        (B, T, H), which is what `seg_prompts` reads at a `[SEG]`."""
        body = self.language_model.model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True, **kwargs)
        return body.last_hidden_state

    def language_head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., H)."""
        return self.language_model.lm_head(hidden)

    def seg_prompts(self, hidden: Tensor) -> Tensor:
        """Hidden states (N, H) at `[SEG]` inputs to SAM2 prompt embeddings (N, d_model)."""
        return self.text_hidden_fcs(hidden)


def pixel_shuffle(patches: Tensor, cells: int) -> Tensor:
    """Folds each 2x2 block of patches (N, 4 * cells^2, C) into one cell (N, cells^2, 4C); InternVL's v2."""
    count, _, channels = patches.shape
    blocks = patches.view(count, cells, 2, cells, 2, channels).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(count, cells * cells, 4 * channels)


def parameter_dtype(model: nn.Module) -> torch.dtype:
    """The dtype that the model computes in."""
    return next(model.parameters()).dtype

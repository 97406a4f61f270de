"""Sa2VA in the Qwen-VL layout: Qwen2.5-VL or Qwen3-VL and SAM2, on the in-tree vision tower and text model.

Three things set this family apart. Positions have three axes: image tokens are placed by row and column, and text goes
on where the larger of the two ends. Qwen3-VL adds image features not only to the input of the language model but to its
first layers (DeepStack). And `[SEG]` is read before or after the final norm, so that the body here ends before it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AutoModel
from transformers.cache_utils import Cache

from sa2va_bento.model.attention import RAGGED, RaggedAttention, unused_mask
from sa2va_bento.model.base import PromptInputs, Sa2VA
from sa2va_bento.model.low_rank import Share
from sa2va_bento.model.qwen_vl.config import QwenVLConfig
from sa2va_bento.model.qwen_vl.patch_layout import patch_layout
from sa2va_bento.types import TokenGrid


class LanguageModel(nn.Module):
    """The text model with its final norm moved out of it, in front of the head."""

    def __init__(self, config: QwenVLConfig) -> None:
        super().__init__()
        self.model = AutoModel.from_config(config.llm, attn_implementation=RAGGED)
        self.norm: nn.Module = self.model.norm
        self.model.norm = nn.Identity()
        self.lm_head = nn.Linear(config.llm.hidden_size, config.llm.vocab_size, bias=False)

    def forward(self, embeddings: Tensor, **kwargs: object) -> Tensor:
        """Hidden states (B, T, H) of the last layer, not normed."""
        return self.model(inputs_embeds=embeddings, **kwargs).last_hidden_state


class QwenVLSa2VA(Sa2VA):
    """The modules of a checkpoint."""

    config: QwenVLConfig

    def __init__(self, config: QwenVLConfig) -> None:
        super().__init__(config)
        self.visual = AutoModel.from_config(config.vision)
        self.language_model = LanguageModel(config)
        self.add_grounding()

    def encode_pictures(self, pixels: Tensor, grids: Sequence[Sequence[TokenGrid]]) -> list[Tensor]:
        """Patches (P, D) of all pictures to image tokens: (1, K, W) a picture, what goes to deeper layers behind the
        first H."""
        merge = self.config.vision.spatial_merge_size
        shapes = [(1, rows * merge, columns * merge) for images in grids for rows, columns in images]
        shape = torch.tensor(shapes)
        output = self.visual(pixels, grid_thw=shape, **patch_layout(self.visual, shape, pixels.device))
        tokens = torch.cat([output.pooler_output, *getattr(output, "deepstack_features", ())], dim=-1)
        return list(tokens[None].split([_token_count(images) for images in grids], dim=1))

    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        return self.language_model.model.embed_tokens(input_ids)

    def read_prompt(
        self, input_ids: Tensor, image_tokens: Tensor | None, grids: Sequence[TokenGrid], image_token_id: int
    ) -> PromptInputs:
        ids = input_ids.to(self.language_model.lm_head.weight.device, non_blocking=True)
        embeddings = self.embed_tokens(ids)
        embeddings = pad(embeddings, (0, self.config.deep_layers * embeddings.shape[-1]))
        if image_tokens is not None:
            places = (ids == image_token_id).unsqueeze(-1).expand_as(embeddings)
            embeddings = embeddings.masked_scatter(places, image_tokens.to(embeddings.dtype))
        positions = rope_positions(input_ids.tolist(), grids, image_token_id)
        shift = int(positions.max()) + 1 - len(positions)
        return PromptInputs(embeddings, positions.to(embeddings.device, non_blocking=True), shift)

    def language_body(
        self,
        embeddings: Tensor,
        cache: Cache,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """The last layer before the final norm."""
        tokens, *deep = embeddings.split(self.config.llm.hidden_size, dim=-1)
        if position_ids is not None and position_ids.ndim == 3:
            position_ids = position_ids.permute(2, 0, 1)
        return self.language_model(
            tokens,
            past_key_values=cache,
            use_cache=True,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **self._deep(tokens, deep),
        )

    @property
    def text_model(self) -> nn.Module:
        return self.language_model.model

    def language_step(
        self,
        embeddings: Tensor,
        positions: Tensor,
        attention: RaggedAttention,
        wanted: Tensor | None = None,
        share: Share | None = None,
    ) -> Tensor:
        if self.decoder:
            hidden, *added = embeddings.split(self.config.llm.hidden_size, dim=-1)
            return self.decoder(hidden, positions, attention, added, wanted, share)
        tokens, *deep = embeddings[None].split(self.config.llm.hidden_size, dim=-1)
        hidden = self.language_model(
            tokens,
            use_cache=False,
            attention_mask=unused_mask(embeddings),
            position_ids=positions[None] if positions.ndim == 1 else positions.T[:, None],
            ragged=attention,
            **self._deep(tokens, deep),
        )[0]
        return hidden if wanted is None else hidden[wanted]

    def _deep(self, tokens: Tensor, deep: list[Tensor]) -> dict[str, object]:
        """DeepStack: what is added to the first layers' results; zeros where there is no image."""
        if not deep:
            return {}
        everywhere = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return {"visual_pos_masks": everywhere, "deepstack_visual_embeds": [part.flatten(0, 1) for part in deep]}

    def language_head(self, hidden: Tensor) -> Tensor:
        return self.language_model.lm_head(self.language_model.norm(hidden))

    def tie_head(self) -> None:
        if self.config.llm.tie_word_embeddings:
            self.language_model.lm_head.weight = self.language_model.model.embed_tokens.weight

    def seg_prompts(self, hidden: Tensor) -> Tensor:
        before_norm = self.config.kind.reads_seg_before_norm
        return super().seg_prompts(hidden if before_norm else self.language_model.norm(hidden))


def rope_positions(input_ids: Sequence[int], grids: Sequence[TokenGrid], image_token_id: int) -> Tensor:
    """Positions (T, 3) of a prompt (T,) on the axes time, row and column. Text advances on all three; an image's
    tokens share one moment and spread from there over rows and columns; what follows starts behind the farthest."""
    parts: list[Tensor] = []
    place = position = 0
    for rows, columns in grids:
        start = input_ids.index(image_token_id, place)
        parts += [_text_positions(position, start - place), _image_positions(position + start - place, rows, columns)]
        position += start - place + max(rows, columns)
        place = start + rows * columns
    parts.append(_text_positions(position, len(input_ids) - place))
    return torch.cat(parts)


def _text_positions(first: int, count: int) -> Tensor:
    return torch.arange(first, first + count)[:, None].expand(-1, 3)


def _image_positions(first: int, rows: int, columns: int) -> Tensor:
    return first + torch.cartesian_prod(torch.zeros(1, dtype=torch.long), torch.arange(rows), torch.arange(columns))


def _token_count(grids: Sequence[TokenGrid]) -> int:
    return sum(rows * columns for rows, columns in grids)

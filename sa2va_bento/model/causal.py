"""What the families share whose language model is an in-tree causal model with places for positions: image tokens are
put where their placeholders stand, and `[SEG]` is read after the final norm."""

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.cache_utils import Cache

from sa2va_bento.model.attention import RAGGED, RaggedAttention, unused_mask
from sa2va_bento.model.base import PromptInputs, Sa2VA
from sa2va_bento.model.low_rank import Share
from sa2va_bento.types import TokenGrid


class CausalSa2VA(Sa2VA):
    """The half of a model that reads and writes; `language_model` is added by `add_language_model`."""

    def add_language_model(self) -> None:
        """Makes the language model."""
        self.language_model = AutoModelForCausalLM.from_config(self.config.llm, attn_implementation=RAGGED)

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
        self,
        embeddings: Tensor,
        positions: Tensor,
        attention: RaggedAttention,
        wanted: Tensor | None = None,
        share: Share | None = None,
    ) -> Tensor:
        if self.decoder:
            return self.decoder(embeddings, positions, attention, wanted=wanted, share=share)
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

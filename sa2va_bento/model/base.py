"""What every family of Sa2VA has, and all that the engine asks of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from sa2va_bento.model.attention import RaggedAttention
from sa2va_bento.model.clip_sampling import ClipSampling
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.decoder import FlatDecoder, lay_out
from sa2va_bento.model.low_rank import Share
from sa2va_bento.model.sam2 import prompt_decoder
from sa2va_bento.types import Picture, TokenGrid


@dataclass(frozen=True)
class PromptInputs:
    """A prompt of T tokens as `Sa2VA.language_body` reads it.

    `embeddings` (T, W): W is at least H; a family that adds to deeper layers brings what it adds behind the first H.
    `positions` (T, P), of P axes, unless each token's position is its place in the prompt. `shift` is what is added to
    the place of a token of the reply to get its position.
    """

    embeddings: Tensor
    positions: Tensor | None = None
    shift: int = 0


class Sa2VA(nn.Module, ABC):
    """The modules of a checkpoint. Nothing in here disables gradients or picks a device."""

    has_tiles = False
    """Whether a picture's pixels are tiles along dim 0, (N, 3, S, S), of as many image tokens each."""
    decoder: FlatDecoder | None = None
    """What computes `language_step` in place of the in-tree modules, once `prepare_steps` has found that it can."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.config = config

    def add_grounding(self) -> None:
        """Makes the parts that all families share; the last step of making a model."""
        width = self.config.llm.hidden_size
        self.grounding_encoder = self.config.grounding.model(self.config.sam2)
        self.text_hidden_fcs = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, self.config.sam2_shape.d_model)
        )

    @abstractmethod
    def encode_pictures(self, pixels: Tensor, grids: Sequence[Sequence[TokenGrid]]) -> list[Tensor]:
        """Image tokens of several pictures, whose pixels are joined along dim 0, given the grids of each: a tensor
        (N, cells, W) a picture."""

    @abstractmethod
    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        """Embeddings (..., H) of text tokens (...)."""

    @abstractmethod
    def read_prompt(
        self, input_ids: Tensor, image_tokens: Tensor | None, grids: Sequence[TokenGrid], image_token_id: int
    ) -> PromptInputs:
        """A prompt (T,), which is on the CPU, with the image tokens (K, W) of these grids put at its K placeholders,
        in order. Without them, where they were read before, everything else is the same."""

    @abstractmethod
    def language_body(
        self,
        embeddings: Tensor,
        cache: Cache,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Runs embeddings (B, T, W) or (B, T, H) on top of the cache, which grows by T: hidden states (B, T, H), which
        `language_head` and `seg_prompts` read. Positions are (B, T) or (B, T, P); None are those after the cache."""

    @property
    @abstractmethod
    def text_model(self) -> nn.Module:
        """The in-tree module of the language model's layers."""

    def prepare_steps(self) -> None:
        """Lays the weights out for `language_step` and for mask decoding. They are on their device, and stay there."""
        if self.decoder is None:
            self.decoder = FlatDecoder.of(self.text_model)
            lay_out(prompt_decoder(self.grounding_encoder))

    @abstractmethod
    def language_step(
        self,
        embeddings: Tensor,
        positions: Tensor,
        attention: RaggedAttention,
        wanted: Tensor | None = None,
        share: Share | None = None,
    ) -> Tensor:
        """`language_body` for pieces of several sequences one after the other: (N, W) or (N, H) at positions (N,) or
        (N, P) to hidden states (N, H), or those of `wanted` tokens (M,) alone. Attention keeps their keys and values,
        and knows what each token sees; `share` says which tokens are an adapter's, where the `decoder` has any."""

    @abstractmethod
    def language_head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., H)."""

    @abstractmethod
    def tie_head(self) -> None:
        """Makes the head the embedding table where the configuration says so."""

    def clip_prompts(self, prompts: Tensor) -> Tensor:
        """What objects are followed by through a clip, given the prompts (N, d) of a reply: one an object, the same, or
        one for each part of the clip, (objects, parts, d)."""
        return prompts

    def seg_prompts(self, hidden: Tensor) -> Tensor:
        """Hidden states (N, H) at `[SEG]` inputs to SAM2 prompt embeddings (N, d_model)."""
        return self.text_hidden_fcs(hidden)


def parameter_dtype(model: nn.Module) -> torch.dtype:
    """The dtype that the model computes in."""
    return next(model.parameters()).dtype


@dataclass(frozen=True)
class Family:
    """All that the project knows of a family; adding one is writing this, in a folder of its own, and a line in
    `sa2va_bento.model.registry`.

    `architecture` is `architectures[0]` in `config.json`, and `language_models` what it may hold, for people. `config`
    reads a `config.json` (of which everything else follows: chat template, weight names, geometry), `model` builds the
    modules without weights, `image_processor` makes a `Picture` of the configuration, an RGB picture, its regions
    (H, W) and the most tiles. `clips` is there where clips are sampled in a way of the family's own.
    """

    architecture: str
    language_models: tuple[str, ...]
    config: Callable[[Mapping[str, Any]], CheckpointConfig]
    model: Callable[[Any], Sa2VA]
    image_processor: Callable[..., Picture]
    clips: ClipSampling | None = None

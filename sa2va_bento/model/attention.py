"""Attention over a ragged batch: tokens of several sequences one after the other, (1, N, H), without padding. The
engine says by `RaggedAttention` what each token sees; transformers' attention interface brings it to every in-tree
language model, whichever family it is of."""

from typing import Any, Protocol, cast

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

RAGGED = "sa2va_ragged"
"""`attn_implementation` of the language models: as "sdpa" where there is no `ragged`."""


class RaggedAttention(Protocol):
    """The tokens of a step, where their keys and values go, and what they see."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Keeps keys and values (N, KV heads, D) and attends: queries (N, heads, D) to results of the same shape."""
        ...


def ragged_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    ragged: RaggedAttention | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Queries (1, heads, N, D) to (1, N, heads, D)."""
    if ragged is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    layer, scale = cast(int, module.layer_idx), scaling or query.shape[-1] ** -0.5
    queries, keys, values = (states[0].transpose(0, 1) for states in (query, key, value))
    return ragged.attend(layer, queries, keys, values, scale)[None], None


AttentionInterface.register(RAGGED, ragged_attention_forward)
AttentionMaskInterface.register(RAGGED, sdpa_mask)


def unused_mask(embeddings: Tensor) -> Tensor:
    """In-tree models take a mask of four dimensions for one that is made already, and make none."""
    return embeddings.new_zeros(1, 1, 1, 1)

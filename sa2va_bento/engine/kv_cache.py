"""The KV cache: keys and values of all running sequences, two buffers a layer, of which each sequence has a row.

Rows are of different lengths and are carved from one arena (`arena.py`), so that memory goes to tokens and not to the
longest context that a request might have had. A row is one stretch, its heads one after the other, (KV heads, size,
width), or its tokens, (size, KV heads, width), where a GPU's kernel wants them so: attention reads it where it lies.
A cache of blocks all over the memory would have to be gathered at every step, which takes more than twice the time of
the attention itself on a CPU (`benchmarks/README.md`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from sa2va_bento.engine.arena import Row


def head_width(config: PreTrainedConfig) -> int:
    """Numbers of a head's key, or value, of one token."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


class KVCache:
    """Buffers (tokens * KV heads, head width) for each layer, zero where nothing was written (zeros cost no memory on
    the CPU until they are touched, and an attention weight of zero times NaN would be NaN). They are on one device, or
    each on its layer's."""

    def __init__(
        self,
        config: PreTrainedConfig,
        tokens: int,
        dtype: torch.dtype,
        device: torch.device | Sequence[torch.device],
        by_token: bool = False,
    ) -> None:
        self._by_token = by_token
        self.tokens, self.heads, self.width = tokens, config.num_key_value_heads, head_width(config)
        shape = (tokens * self.heads, self.width)
        devices = [device] * config.num_hidden_layers if isinstance(device, torch.device) else device
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for device in devices]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for device in devices]

    @property
    def bytes(self) -> int:
        """Of all buffers, touched or not."""
        return sum(buffer.numel() * buffer.element_size() for buffer in (*self.keys, *self.values))

    def rows(self, buffer: Tensor, first: Row, count: int = 1) -> Tensor:
        """`count` rows of one size, side by side from `first` on: a view (count, KV heads, size, width) of a buffer."""
        stretch = buffer[first.start * self.heads : (first.start + count * first.size) * self.heads]
        if self._by_token:
            return stretch.view(count, first.size, self.heads, self.width).transpose(1, 2)
        return stretch.view(count, self.heads, first.size, self.width)

    def move(self, source: Row, target: Row, length: int) -> None:
        """Copies the first `length` places of a row to another row."""
        for buffer in (*self.keys, *self.values):
            self.rows(buffer, target)[0, :, :length] = self.rows(buffer, source)[0, :, :length]

    def copy_out(self, row: Row, length: int) -> Tensor:
        """The first `length` places of a row, all layers' keys and values: (2 * layers, KV heads, length, width)."""
        first = self.keys[0].device
        return torch.stack([self.rows(buffer, row)[0, :, :length].to(first) for buffer in (*self.keys, *self.values)])

    def copy_in(self, row: Row, content: Tensor) -> None:
        """Writes what `copy_out` gave to the beginning of a row."""
        for buffer, part in zip((*self.keys, *self.values), content, strict=True):
            self.rows(buffer, row)[0, :, : part.shape[1]] = part

"""The static KV cache: keys and values of all running sequences, one buffer a layer, one row a sequence.

transformers' own static cache keeps a single length for all its rows. These views let the unmodified in-tree models
write each row where that row is, which is what lets requests join and leave between two steps.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin


class KVCache:
    """Buffers (rows, KV heads, context, head width) for each layer, zero where nothing was written (zeros cost no
    memory on the CPU until they are touched, and an attention weight of zero times NaN would be NaN). They are on one
    device, or each on its layer's."""

    def __init__(
        self,
        config: PreTrainedConfig,
        rows: int,
        context: int,
        dtype: torch.dtype,
        device: torch.device | Sequence[torch.device],
    ) -> None:
        self.rows, self.context = rows, context
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (rows, config.num_key_value_heads, context, width)
        devices = [device] * config.num_hidden_layers if isinstance(device, torch.device) else device
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for device in devices]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for device in devices]

    def prefill_view(self, rows: Tensor, places: Tensor, window: int) -> Cache:
        """A cache for T tokens in each of B rows (B,), any of them: those of row `rows[i]` go to `places[i]` (B, T).
        Attention sees the first `window` places."""
        return Cache(layers=[_PrefillLayer(k, v, rows[:, None], places, window) for k, v in self._layers()])

    def decode_view(self, first: int, places: Tensor, window: int) -> Cache:
        """A cache for one token in each of the rows from row `first`: row i's goes to `places[i]` (B,). Attention
        sees the first `window` places."""
        rows = slice(first, first + len(places))
        index = torch.arange(len(places), device=places.device)
        return Cache(layers=[_ScatterLayer(k[rows], v[rows], index, places, window) for k, v in self._layers()])

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` places of a row to another row."""
        for buffer in (*self.keys, *self.values):
            buffer[target, :, :length] = buffer[source, :, :length]

    def copy_out(self, row: int, length: int) -> Tensor:
        """The first `length` places of a row, all layers' keys and values: (2 * layers, KV heads, length, width)."""
        first = self.keys[0].device
        return torch.stack([buffer[row, :, :length].to(first) for buffer in (*self.keys, *self.values)])

    def copy_in(self, row: int, content: Tensor) -> None:
        """Writes what `copy_out` gave to the beginning of a row."""
        for buffer, part in zip((*self.keys, *self.values), content, strict=True):
            buffer[row, :, : part.shape[1]] = part

    def _layers(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.keys, self.values, strict=True)


class _Layer(CacheLayerMixin):
    """What the in-tree models ask of a layer's cache."""

    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self.keys, self.values = self._keys, self._values = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the buffers are there."""

    def get_max_length(self) -> int:
        return self._keys.shape[2]


class _PrefillLayer(_Layer):
    """Rows of different lengths, several new places in each."""

    def __init__(self, keys: Tensor, values: Tensor, rows: Tensor, places: Tensor, window: int) -> None:
        super().__init__(keys, values)
        self._rows, self._places, self._window = rows.to(keys.device), places.to(keys.device), window

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        self._keys[self._rows, :, self._places] = key_states.transpose(1, 2)  # (B, T, KV heads, width)
        self._values[self._rows, :, self._places] = value_states.transpose(1, 2)
        rows = self._rows[:, 0]
        return self._keys[rows, :, : self._window], self._values[rows, :, : self._window]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._window, 0

    def get_seq_length(self) -> int:
        return 0  # the caller passes positions, and a mask unless all rows begin at 0


class _ScatterLayer(_Layer):
    """Rows of different lengths, one new place in each."""

    def __init__(self, keys: Tensor, values: Tensor, index: Tensor, places: Tensor, window: int) -> None:
        super().__init__(keys, values)
        self._index, self._places, self._window = index.to(keys.device), places.to(keys.device), window

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        self._keys[self._index, :, self._places] = key_states[:, :, 0]
        self._values[self._index, :, self._places] = value_states[:, :, 0]
        return self._keys[:, :, : self._window], self._values[:, :, : self._window]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._window, 0

    def get_seq_length(self) -> int:
        return 0  # the caller passes mask and positions


def causal_mask(places: Tensor, window: int, dtype: torch.dtype) -> Tensor:
    """What tokens at `places` (B, T) of their rows may see: an additive mask (B, 1, T, window)."""
    seen = torch.arange(window, device=places.device) <= places[..., None]
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=places.device)
    return torch.where(seen, torch.zeros_like(hidden), hidden)[:, None]

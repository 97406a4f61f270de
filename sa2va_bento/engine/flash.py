"""Attention of a step over rows where they lie, on a GPU: FlashAttention's kernel for sequences of any lengths.

Neither padding nor a mask nor a copy of the cache: each row of the cache is one sequence of the kernel, of which it
reads as many tokens as count. Causality is aligned to the end of a sequence, so that a piece of a prompt, a whole
prompt and the one token of a decode step are one case.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sa2va_bento.engine.kv_cache import KVCache
from sa2va_bento.engine.ragged import Piece
from sa2va_bento.engine.transfer import on_device

HALVES = (torch.bfloat16, torch.float16)
LEAST_CAPABILITY = (8, 0)
"""Of the device: Ampere and later have the instructions that the kernel is written in."""
WIDEST = 256
"""Numbers of a head that the kernel can hold; a multiple of 8."""


def has_kernel(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether the kernel runs there, on heads of that width."""
    if device.type != "cuda" or dtype not in HALVES or width > WIDEST or width % 8:
        return False
    return torch.cuda.get_device_capability(device) >= LEAST_CAPABILITY


class FlashAttention:
    """Of B sequences' tokens, N in all, one after the other.

    `starts` (B,) are their rows', `ends` (B,) how many tokens of each row count, `places` (N,) where in the cache the
    step's tokens go, `firsts` (B + 1,) the first token of each sequence in the step. No sequence brings more than
    `longest` tokens, nor has more than `window`.
    """

    def __init__(
        self, cache: KVCache, starts: Tensor, ends: Tensor, places: Tensor, firsts: Tensor, longest: int, window: int
    ) -> None:
        self._cache, self._places, self._longest, self._window = cache, places, longest, window
        bounds = torch.cat([starts, starts[-1:]])  # the kernel reads where a row begins, `ends` says how long it is
        self._bounds, self._ends, self._firsts = bounds.int(), ends.int(), firsts.int()

    @classmethod
    def of_tokens(cls, cache: KVCache, starts: Tensor, places: Tensor, window: int) -> "FlashAttention":
        """One token of each sequence, at `places` (B,) of its row."""
        firsts = torch.arange(len(starts) + 1, device=starts.device)
        return cls(cache, starts, places + 1, starts + places, firsts, 1, window)

    @classmethod
    def of_pieces(cls, cache: KVCache, pieces: Sequence[Piece], device: torch.device) -> "FlashAttention":
        """Any number of each sequence."""
        rows, counts = [piece.row.start for piece in pieces], [piece.count for piece in pieces]
        ends = [piece.end for piece in pieces]
        places = np.concatenate([p.row.start + np.arange(p.place, p.end) for p in pieces])
        firsts = np.concatenate([[0], np.cumsum(counts)])
        starts, used = on_device([rows, ends], device)
        at, of = on_device(places.tolist(), device), on_device(firsts.tolist(), device)
        return cls(cache, starts, used, at, of, max(counts), max(ends))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys, values = (buffer.view(-1, self._cache.heads, self._cache.width) for buffer in (keys, values))
        places, firsts, bounds, ends = (
            index.to(keys.device) for index in (self._places, self._firsts, self._bounds, self._ends)
        )
        keys.index_copy_(0, places, key)
        values.index_copy_(0, places, value)
        return varlen_attention(query, keys, values, firsts, bounds, ends, self._longest, self._window, scale)


def varlen_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    firsts: Tensor,
    bounds: Tensor,
    ends: Tensor,
    longest: int,
    window: int,
    scale: float,
) -> Tensor:
    """Queries (N, heads, D) over keys and values (tokens, KV heads, D), causally, to (N, heads, D).

    `torch.nn.attention.varlen` takes `seqused_k` too, from torch 2.12 on, and is this operator and an allocation.
    """
    attend: Any = torch.ops.aten._flash_attention_forward
    found = attend(
        query, keys, values, firsts, bounds, longest, window, 0.0, longest > 1, False, scale=scale, seqused_k=ends
    )
    return found[0]

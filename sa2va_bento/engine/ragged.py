"""Attention of a step: pieces of several sequences, each in its row of the KV cache, without padding between them.

`ViewAttention` reads rows where they lie, those of one size that are neighbours together; it is what a CPU likes.
`GatherAttention` collects rows by index into one batch of fixed shape, with few launches and nothing to decide on the
host, which is what a GPU and its graphs need.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as attention

from sa2va_bento.engine.arena import Row
from sa2va_bento.engine.kv_cache import KVCache
from sa2va_bento.engine.transfer import from_numpy, on_device

GATHERED = 2**16
"""Most places of the cache, rows times window, that a prompt's attention copies at once, unless one row has more."""
MASKED = 2**23
"""Most numbers of its mask, for each of the heads that share keys."""


MOST_BETWEEN = 2
"""Rows between two of a run that are computed for nothing: cheaper than another kernel for what follows them."""


@dataclass(frozen=True)
class Piece:
    """`count` tokens of a sequence, from place `place` of its row on."""

    row: Row
    place: int
    count: int = 1

    @property
    def end(self) -> int:
        return self.place + self.count


@dataclass(frozen=True)
class _Run:
    """Tokens `tokens` of a step: several of one row, or one each of `rows` rows of one size that are neighbours. A few
    rows between them may be nobody's: then `order` (rows,) has a token for each row, and `kept` the rows that count."""

    tokens: slice
    rows: int
    view: tuple[tuple[int, ...], tuple[int, ...], int]
    """Sizes, strides and offset of (rows, KV heads, window, D) in the cache's buffers."""
    mask: Tensor | None
    is_new: bool
    """A prompt's beginning: its keys and values are those of the step."""
    order: Tensor | None = None
    kept: Tensor | None = None


class ViewAttention:
    """Attention over views of the cache: one kernel for each run of neighbouring rows."""

    def __init__(self, cache: KVCache, pieces: Sequence[Piece]) -> None:
        self._cache = cache
        self._writes = _places_in_buffers(pieces, cache.heads)
        self._runs = [self._run(run, start) for run, start in _runs(pieces)]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys.index_copy_(0, self._writes, key.reshape(-1, key.shape[-1]))
        values.index_copy_(0, self._writes, value.reshape(-1, value.shape[-1]))
        parts = [self._attend(run, query[run.tokens], key, value, keys, values, scale) for run in self._runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _attend(
        self, run: _Run, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, scale: float
    ) -> Tensor:
        """The run's queries to their results, (n, heads, D)."""
        if run.is_new:
            k, v = (states[run.tokens].transpose(0, 1)[None] for states in (key, value))
        else:
            k, v = keys.as_strided(*run.view), values.as_strided(*run.view)
        if run.rows == 1 and len(query) > 1:
            found = attention(
                query.transpose(0, 1)[None],
                k,
                v,
                attn_mask=run.mask,
                scale=scale,
                is_causal=run.is_new,
                enable_gqa=True,
            )
            return found[0].transpose(0, 1)
        # one token each: the heads that share keys are as good as several tokens of one head
        query = query if run.order is None else query[run.order]
        grouped = query.reshape(run.rows, self._cache.heads, -1, query.shape[-1])
        found = attention(grouped, k, v, attn_mask=run.mask, scale=scale).reshape(query.shape)
        return found if run.kept is None else found[run.kept]

    def _run(self, run: list[Piece], start: int) -> _Run:
        first, window = run[0].row, max(piece.end for piece in run)
        tokens = slice(start, start + sum(piece.count for piece in run))
        places = [(piece.row.start - first.start) // first.size for piece in run]
        rows, is_new = places[-1] + 1, run[0].place == 0 and len(run) == 1
        order = kept = None
        if rows > len(run):
            kept = torch.tensor(places)
            order = torch.zeros(rows, dtype=torch.long)
            order[kept] = torch.arange(len(run))
        is_last = len(run) == 1 and run[0].count == 1
        mask = None if is_new or is_last else self._mask(run, window, order)
        return _Run(tokens, rows, self._view(first, rows, window), mask, is_new, order, kept)

    def _view(self, first: Row, rows: int, window: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        heads, width = self._cache.heads, self._cache.width
        head = first.size * width
        return (rows, heads, window, width), (heads * head, head, width, 1), first.start * heads * width

    def _mask(self, run: list[Piece], window: int, order: Tensor | None) -> Tensor:
        """(rows, 1, tokens of a row, window)."""
        places = torch.tensor([range(piece.place, piece.end) for piece in run])
        places = places if order is None else places[order]
        return causal_mask(places, window, self._cache.keys[0].dtype)


def _runs(pieces: Sequence[Piece]) -> list[tuple[list[Piece], int]]:
    """Pieces that are read together, and the number of their first token in the step."""
    runs: list[tuple[list[Piece], int]] = []
    token = 0
    for piece in pieces:
        if runs and _continues(runs[-1][0][-1], piece):
            runs[-1][0].append(piece)
        else:
            runs.append(([piece], token))
        token += piece.count
    return runs


def _continues(last: Piece, piece: Piece) -> bool:
    """Whether two rows are neighbours, or nearly so."""
    are_single = last.count == piece.count == 1
    rows, rest = divmod(piece.row.start - last.row.end, last.row.size)
    return are_single and last.row.size == piece.row.size and rest == 0 and 0 <= rows <= MOST_BETWEEN


def _places_in_buffers(pieces: Sequence[Piece], heads: int) -> Tensor:
    """Where the cache's buffers keep the heads of each token: (tokens * heads,)."""
    counts = [piece.count for piece in pieces]
    first = np.repeat([piece.row.start * heads + piece.place for piece in pieces], counts)
    sizes = np.repeat([piece.row.size for piece in pieces], counts)
    within = np.concatenate([np.arange(count) for count in counts])
    return from_numpy(((first + within)[:, None] + np.arange(heads) * sizes[:, None]).reshape(-1))


class GatherAttention:
    """Attention over a copy of the rows in use, all as long as the window: (B, KV heads, window, D).

    `starts` and `sizes` (B,) are the rows', `places` (B, T) those of the step's tokens. Where pieces are of different
    lengths, `padded` (B, T) is the number of the token to compute at each place of the batch, and `tokens` (N,) where
    in the batch each token is. `are_new` says that all of them are prompts' beginnings.
    """

    def __init__(
        self,
        cache: KVCache,
        starts: Tensor,
        sizes: Tensor,
        places: Tensor,
        window: int,
        padded: Tensor | None = None,
        tokens: Tensor | None = None,
        are_new: bool = False,
    ) -> None:
        self._cache, self._padded, self._tokens, self._are_new = cache, padded, tokens, are_new
        heads = torch.arange(cache.heads, device=starts.device)
        first = starts[:, None] * cache.heads + heads * sizes[:, None]  # (B, KV heads)
        writes = (first[:, None] + places[..., None]).flatten(0, 1)  # (B * T, KV heads)
        self._writes = (writes if tokens is None else writes[tokens]).flatten()
        if not are_new:
            seen = torch.arange(window, device=starts.device).minimum(sizes[:, None] - 1)  # (B, window)
            self._reads = first[..., None] + seen[:, None]
            self._mask = causal_mask(places, window, cache.keys[0].dtype)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys.index_copy_(0, self._writes.to(keys.device), key.reshape(-1, key.shape[-1]))
        values.index_copy_(0, self._writes.to(keys.device), value.reshape(-1, value.shape[-1]))
        if self._padded is None:
            return self._attend_rows(query[:, :, None], keys, values, scale)[:, :, 0]
        q = self._batch(query)
        if self._are_new:
            return self._ragged(
                attention(q, self._batch(key), self._batch(value), is_causal=True, scale=scale, enable_gqa=True)
            )
        return self._ragged(self._attend_rows(q, keys, values, scale))

    def _attend_rows(self, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """Queries (B, heads, T, D) over what was gathered. The heads that share keys are as good as several tokens of
        one head, which spares a copy of the keys for each."""
        reads, mask = self._reads.to(keys.device), self._mask.to(keys.device)
        batch, _, longest, width = query.shape
        grouped = query.reshape(batch, self._cache.heads, -1, longest, width)  # (B, KV heads, heads that share, T, D)
        found = attention(
            grouped.flatten(2, 3),
            keys[reads],
            values[reads],
            attn_mask=mask.repeat(1, 1, grouped.shape[2], 1) if longest > 1 else mask,
            scale=scale,
        )
        return found.reshape(batch, -1, longest, width)

    def _batch(self, states: Tensor) -> Tensor:
        """(N, heads, D) to (B, heads, T, D)."""
        assert self._padded is not None
        return states[self._padded.to(states.device)].transpose(1, 2)

    def _ragged(self, found: Tensor) -> Tensor:
        """(B, heads, T, D) to (N, heads, D)."""
        assert self._tokens is not None
        return found.transpose(1, 2).flatten(0, 1)[self._tokens.to(found.device)]


class _Groups:
    """Several attentions, each of its part of the step's tokens."""

    def __init__(self, parts: Sequence[tuple[slice, GatherAttention]]) -> None:
        self._parts = parts

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        return torch.cat([a.attend(layer, query[at], key[at], value[at], scale) for at, a in self._parts])


def gathering(cache: KVCache, pieces: Sequence[Piece], device: torch.device) -> GatherAttention | _Groups:
    """For pieces of any lengths: in one batch or, where that would copy too much, in several."""
    groups = _groups(pieces)
    if len(groups) == 1:
        return _gather(cache, pieces, device)
    parts: list[tuple[slice, GatherAttention]] = []
    token = 0
    for group in groups:
        count = sum(piece.count for piece in group)
        parts.append((slice(token, token + count), _gather(cache, group, device)))
        token += count
    return _Groups(parts)


def _groups(pieces: Sequence[Piece]) -> list[list[Piece]]:
    groups: list[list[Piece]] = []
    for piece in pieces:
        if groups and _is_little([*groups[-1], piece]):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _is_little(pieces: Sequence[Piece]) -> bool:
    longest, window = max(piece.count for piece in pieces), max(piece.end for piece in pieces)
    return len(pieces) * window <= GATHERED and len(pieces) * window * longest <= MASKED


def _gather(cache: KVCache, pieces: Sequence[Piece], device: torch.device) -> GatherAttention:
    longest, window = max(piece.count for piece in pieces), max(piece.end for piece in pieces)
    starts, sizes = on_device([[p.row.start for p in pieces], [p.row.size for p in pieces]], device)
    counts = np.array([piece.count for piece in pieces])
    within = np.minimum(np.arange(longest), counts[:, None] - 1)  # (B, T): padding repeats the last token
    places = on_device((np.array([piece.place for piece in pieces])[:, None] + within).tolist(), device)
    if longest == 1:
        return GatherAttention(cache, starts, sizes, places, window)
    padded = (counts.cumsum() - counts)[:, None] + within
    tokens = np.flatnonzero(np.arange(longest) < counts[:, None])
    are_new = not any(piece.place for piece in pieces)
    ragged = (on_device(padded.tolist(), device), on_device(tokens.tolist(), device))
    return GatherAttention(cache, starts, sizes, places, window, *ragged, are_new)


def causal_mask(places: Tensor, window: int, dtype: torch.dtype) -> Tensor:
    """What tokens at `places` (B, T) of their rows may see: an additive mask (B, 1, T, window)."""
    seen = torch.arange(window, device=places.device) <= places[..., None]
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=places.device)
    return torch.where(seen, torch.zeros_like(hidden), hidden)[:, None]

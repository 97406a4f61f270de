"""Which sequence has which row of the KV cache."""

from sa2va_bento.engine.arena import Arena, Row, row_size
from sa2va_bento.engine.kv_cache import KVCache
from sa2va_bento.engine.sequence import Sequence

AHEAD = 64
"""Tokens of room for the reply that a new row has, where there is room for them."""


class Rows:
    """Gives rows to sequences and larger ones to those that grow; what they hold moves along."""

    def __init__(self, cache: KVCache, context: int) -> None:
        self._cache, self._context, self.arena = cache, context, Arena(cache.tokens)
        self._rows: dict[Sequence, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._rows

    def __getitem__(self, sequence: Sequence) -> Row:
        return self._rows[sequence]

    @property
    def sequences(self) -> list[Sequence]:
        return list(self._rows)

    def reserve(self, sequence: Sequence, tokens: int) -> bool:
        """Sees to it that a sequence's row holds that many tokens; False where there is no memory for it, and then the
        row is as it was."""
        row = self._rows.get(sequence)
        if row and row.size >= tokens:
            return True
        larger = self.arena.take(row_size(min(tokens + AHEAD, self._context), self._context))
        larger = larger or self.arena.take(row_size(tokens, self._context))
        if larger is None:
            return False
        if row:
            self._cache.move(row, larger, row.size)
            self.arena.give_back(row)
        self._rows[sequence] = larger
        return True

    def free(self, sequence: Sequence) -> None:
        """Gives a sequence's row back, if it has one."""
        row = self._rows.pop(sequence, None)
        if row:
            self.arena.give_back(row)

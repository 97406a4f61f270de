"""Who has which part of the KV cache: rows of different lengths, carved from one arena of tokens. No torch in here."""

from bisect import bisect_left
from dataclasses import dataclass

SMALLEST_ROW = 128
"""Tokens. Rows come in two sizes for each power of two from here on, so that few sizes serve all lengths: rows of one
size that lie side by side are one batch of attention, and no row is larger than 1.5 times what it was asked for."""


@dataclass(frozen=True)
class Row:
    """The places of one sequence: `size` tokens from token `start` of the arena on."""

    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


def row_size(tokens: int, context: int) -> int:
    """The size of a row for that many tokens, none being longer than a context."""
    size = SMALLEST_ROW
    while size < tokens:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return min(size, context)


class Arena:
    """A first-fit allocator of `tokens` places. What is free is kept as gaps, in their order and never side by side."""

    def __init__(self, tokens: int) -> None:
        self.tokens, self.used = tokens, 0
        self._gaps = [Row(0, tokens)]

    def take(self, size: int) -> Row | None:
        """The first place for that many tokens; None where no gap is large enough."""
        for number, gap in enumerate(self._gaps):
            if gap.size >= size:
                rest = [Row(gap.start + size, gap.size - size)] if gap.size > size else []
                self._gaps[number : number + 1] = rest
                self.used += size
                return Row(gap.start, size)
        return None

    def give_back(self, row: Row) -> None:
        """Frees a row."""
        number = bisect_left(self._gaps, row.start, key=lambda gap: gap.start)
        first, last, start, end = number, number, row.start, row.end
        if number and self._gaps[number - 1].end == start:
            first, start = number - 1, self._gaps[number - 1].start
        if number < len(self._gaps) and self._gaps[number].start == end:
            last, end = number + 1, self._gaps[number].end
        self._gaps[first:last] = [Row(start, end - start)]
        self.used -= row.size

"""CUDA graphs of the decode step: one launch a token instead of several hundred, which is what a small language model
spends its time on."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from sa2va_bento.engine.arena import Row
from sa2va_bento.engine.limits import Limits

logger = logging.getLogger(__name__)

T = TypeVar("T")

SMALLEST_WINDOW = 256
"""Windows are powers of two from here on, so that few graphs serve all lengths."""

Step = Callable[[Tensor, int], Tensor]
"""Ids, places and positions of the tokens to read, starts and sizes of their rows, numbers of their adapters, (6, B),
and the window: hidden states (B, H)."""


@dataclass(frozen=True)
class _Graph:
    graph: "torch.cuda.CUDAGraph"
    hidden: Tensor


def bucket(size: int, smallest: int, most: int) -> int:
    """The next power of two from `smallest` on, or `most`."""
    while smallest < size:
        smallest *= 2
    return min(smallest, most)


def buckets(smallest: int, most: int) -> list[int]:
    """All values of `bucket`, ascending."""
    sizes = [bucket(smallest, smallest, most)]
    while sizes[-1] < most:
        sizes.append(bucket(sizes[-1] + 1, smallest, most))
    return sizes


class DecodeGraphs:
    """Replays the step from graphs, one for each size of batch and window, all captured before the first request: a
    capture takes longer than many steps. Rows beyond the batch are computed too: they write into `scratch`.

    Where attention copies what it reads, rows times window, no graph copies more than the cache holds twice over, and a
    batch that would is computed in parts, those of similar length together. Where it copies nothing, one window serves
    all lengths. All graphs share one pool of memory. That is safe
    because a graph's result is copied before another one runs.
    """

    def __init__(self, step: Step, limits: Limits, scratch: Row, device: torch.device, copies: bool = True) -> None:
        self._step, self._limits, self._scratch, self._copies = step, limits, scratch, copies
        self._smallest_window = SMALLEST_WINDOW if copies else limits.context
        self._inputs = torch.zeros(6, limits.slots, dtype=torch.long, device=device)
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Rows and window of every graph, the largest first: the others then fit into the memory that it took."""
        windows = buckets(self._smallest_window, self._limits.context)
        every = [(rows, window) for window in windows for rows in buckets(1, self._limits.slots)]
        return sorted((size for size in every if self._fits(*size)), key=lambda size: -size[0] * size[1])

    def capture_all(self) -> None:
        """Captures every size."""
        for rows, window in self.sizes:
            self._graphs[rows, window] = self._capture(rows, window)

    def __call__(
        self, ids: list[int], places: list[int], positions: list[int], rows: list[Row], numbers: list[int]
    ) -> Tensor:
        """Hidden states (B, H)."""
        order = sorted(range(len(ids)), key=places.__getitem__)
        batch = [ids, places, positions, rows, numbers]
        parts = [self._replay(batch, part) for part in self.parts(order, places)]
        hidden = torch.cat(parts)
        back = sorted(range(len(order)), key=order.__getitem__)
        return hidden if back == order else hidden[_pinned([back])[0].to(hidden.device, non_blocking=True)]

    def parts(self, order: list[int], places: list[int]) -> list[list[int]]:
        """The batch, by ascending length, in as few parts as there are graphs for."""
        parts: list[list[int]] = []
        for number in reversed(order):  # the longest decides on the window
            if parts and self._fits(*self._size(len(parts[-1]) + 1, places[parts[-1][0]])):
                parts[-1].append(number)
            else:
                parts.append([number])
        return [part[::-1] for part in reversed(parts)]

    def _size(self, rows: int, place: int) -> tuple[int, int]:
        return bucket(rows, 1, self._limits.slots), bucket(place + 1, self._smallest_window, self._limits.context)

    def _fits(self, rows: int, window: int) -> bool:
        return not self._copies or rows == 1 or rows * window <= 2 * self._limits.kv_tokens

    def _replay(self, batch: list[list[Any]], part: list[int]) -> Tensor:
        ids, places, positions, rows, numbers = ([values[number] for number in part] for values in batch)
        size, window = self._size(len(part), max(places))
        empty = size - len(part)
        starts = [row.start for row in rows] + [self._scratch.start] * empty
        sizes = [row.size for row in rows] + [self._scratch.size] * empty
        inputs = [[*values, *[0] * empty] for values in (ids, places, positions)]
        inputs += [starts, sizes, [*numbers, *[0] * empty]]
        self._inputs[:, :size].copy_(_pinned(inputs), non_blocking=True)
        captured = self._graphs[size, window]
        captured.graph.replay()
        return captured.hidden[: len(part)].clone()

    def _capture(self, rows: int, window: int) -> _Graph:
        self._inputs[3], self._inputs[4] = self._scratch.start, self._scratch.size
        inputs = self._inputs[:, :rows]
        graph, hidden = record(lambda: self._step(inputs, window), self._pool)
        logger.debug("captured the decode step for %d rows, %d places", rows, window)
        return _Graph(graph, hidden)


def record(compute: Callable[[], T], pool: Any) -> "tuple[torch.cuda.CUDAGraph, T]":
    """The graph of a computation, and its result, whose tensors each replay writes again.

    Raises:
        RuntimeError: it can't be captured.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries set themselves up outside of the capture
        compute()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the device meanwhile; only what this one does must fit into a graph.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        result = compute()
    return graph, result


def _pinned(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows).pin_memory()

"""CUDA graphs of the decode step: one launch a token instead of several hundred, which is what a small language model
spends its time on."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

SMALLEST_WINDOW = 256
"""Windows are powers of two from here on, so that few graphs serve all lengths."""

Step = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Token ids (B,), places (B,) and positions (B,) of rows 0 to B - 1, and the window: hidden states (B, H)."""


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
    capture takes longer than many steps. Rows beyond the batch are computed too; they are free rows of the cache, and
    write where the next prompt is read.

    All graphs share one pool of memory. That is safe because a graph's result is copied before another one runs.
    """

    def __init__(self, step: Step, slots: int, context: int, device: torch.device) -> None:
        self._step, self._slots, self._context = step, slots, context
        self._inputs = torch.zeros(3, slots, dtype=torch.long, device=device)
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def capture_all(self) -> None:
        """Captures every size, the largest first: the others then fit into the memory that it took."""
        for window in reversed(buckets(SMALLEST_WINDOW, self._context)):
            for rows in reversed(buckets(1, self._slots)):
                self._graphs[rows, window] = self._capture(rows, window)

    def __call__(self, ids: list[int], places: list[int], positions: list[int]) -> Tensor:
        """Hidden states (B, H) of the rows 0 to B - 1."""
        rows = bucket(len(ids), 1, self._slots)
        window = bucket(max(places) + 1, SMALLEST_WINDOW, self._context)
        self._inputs[:, : len(ids)].copy_(_pinned([ids, places, positions]), non_blocking=True)
        self._inputs[:, len(ids) : rows].zero_()
        captured = self._graphs[rows, window]
        captured.graph.replay()
        return captured.hidden[: len(ids)].clone()

    def _capture(self, rows: int, window: int) -> _Graph:
        ids, places, positions = self._inputs[:, :rows]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries set themselves up outside of the capture
            self._step(ids, places, positions, window)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile; only what this one does must fit into a graph.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            hidden = self._step(ids, places, positions, window)
        logger.debug("captured the decode step for %d rows, %d places", rows, window)
        return _Graph(graph, hidden)


def _pinned(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows).pin_memory()

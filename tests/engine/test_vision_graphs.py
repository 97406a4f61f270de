"""Which batches are computed from graphs, and what of their memory is whose. Recording them is for `make test-gpu`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sa2va_bento.engine import vision
from sa2va_bento.engine.vision import Graphs


class FakeGraph:
    """Computes again into the same memory, as a graph does."""

    def __init__(self, compute: Callable[[], tuple[Tensor, ...]]) -> None:
        self._compute, self.results, self.replays = compute, compute(), 0

    def replay(self) -> None:
        self.replays += 1
        for result, fresh in zip(self.results, self._compute(), strict=True):
            result.copy_(fresh)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[FakeGraph]:
    graphs: list[FakeGraph] = []

    def record(compute: Callable[[], tuple[Tensor, ...]], pool: Any) -> tuple[FakeGraph, tuple[Tensor, ...]]:
        graphs.append(FakeGraph(compute))
        return graphs[-1], graphs[-1].results

    monkeypatch.setattr(vision, "record", record)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    return graphs


def doubled(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0] * 2, inputs[0] + inputs[1])


def test_small_batches_are_replayed_and_large_ones_computed(recorded: list[FakeGraph]) -> None:
    graphs = Graphs(doubled, 3)
    for count in (2, 1, 3, 4, 2):
        a, b = torch.randn(count, 5), torch.randn(count, 5)
        for found, expected in zip(graphs((a, b)), doubled((a, b)), strict=True):
            assert torch.equal(found, expected)
    assert [graph.replays for graph in recorded] == [1, 2, 1]  # of 3, 2 and 1


def test_what_was_found_stays_when_others_are_computed(recorded: list[FakeGraph]) -> None:
    graphs = Graphs(doubled, 3)
    first, second = (torch.full((2, 5), value) for value in (1.0, 2.0))
    kept = graphs((first, first))[0]
    graphs((second, second))
    assert torch.equal(kept, first * 2)


def test_a_batch_of_another_shape_is_computed(recorded: list[FakeGraph]) -> None:
    graphs = Graphs(doubled, 3)
    graphs((torch.ones(1, 5), torch.ones(1, 5)))
    wide = torch.ones(2, 7)
    assert torch.equal(graphs((wide, wide))[0], wide * 2)
    assert recorded[0].replays + recorded[1].replays == 0


def test_what_can_not_be_recorded_is_computed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def record(compute: Callable[[], object], pool: Any) -> object:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(vision, "record", record)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    graphs = Graphs(doubled, 3)
    for _ in range(2):
        assert torch.equal(graphs((torch.ones(2, 5), torch.ones(2, 5)))[0], torch.full((2, 5), 2.0))
    assert caplog.messages == ["computing without CUDA graphs: no room"]

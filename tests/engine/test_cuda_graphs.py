"""Which graphs there are, and how a batch is put on them. Capturing them is for `make test-gpu`."""

import random

import pytest
import torch
from torch import Tensor

from sa2va_bento.engine.arena import Row
from sa2va_bento.engine.cuda_graphs import DecodeGraphs, bucket, buckets
from sa2va_bento.engine.limits import Limits


@pytest.mark.parametrize(
    ("size", "smallest", "most", "expected"),
    [(1, 1, 16, 1), (3, 1, 16, 4), (16, 1, 16, 16), (9, 1, 12, 12), (200, 256, 4096, 256), (257, 256, 4096, 512)],
)
def test_sizes_are_rounded_up_to_few(size: int, smallest: int, most: int, expected: int) -> None:
    assert bucket(size, smallest, most) == expected


@pytest.mark.parametrize(
    ("smallest", "most", "expected"), [(1, 12, [1, 2, 4, 8, 12]), (256, 1024, [256, 512, 1024]), (256, 100, [100])]
)
def test_every_size_has_its_graph(smallest: int, most: int, expected: list[int]) -> None:
    assert buckets(smallest, most) == expected
    assert {bucket(size, smallest, most) for size in range(1, most + 1)} == set(expected)


def graphs(slots: int = 32, context: int = 8192, kv_tokens: int = 20_000) -> DecodeGraphs:
    def step(inputs: Tensor, window: int) -> Tensor:
        return torch.zeros(inputs.shape[1], 4)

    limits = Limits(slots=slots, context=context, kv_tokens=kv_tokens)
    return DecodeGraphs(step, limits, Row(kv_tokens, 1), torch.device("cpu"))


def test_no_graph_copies_more_than_the_cache_twice_over_but_for_one_row() -> None:
    made = graphs()
    assert all(rows == 1 or rows * window <= 40_000 for rows, window in made.sizes)
    assert made.sizes[0][0] * made.sizes[0][1] == max(rows * window for rows, window in made.sizes)
    assert {window for rows, window in made.sizes if rows == 1} == set(buckets(256, 8192))


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_is_put_on_graphs_that_there_are(seed: int) -> None:
    """Every row in one part, those of similar length together, and a graph for each part."""
    rng, made = random.Random(seed), graphs()
    places = [min(8191, int(rng.lognormvariate(6, 1.2))) for _ in range(rng.randint(1, 32))]
    order = sorted(range(len(places)), key=places.__getitem__)
    parts = made.parts(order, places)
    assert [number for part in parts for number in part] == order
    for part in parts:
        longest = max(places[number] for number in part)
        assert (bucket(len(part), 1, 32), bucket(longest + 1, 256, 8192)) in made.sizes


def test_rows_of_one_length_are_one_part() -> None:
    places = [700] * 16
    assert len(graphs().parts(list(range(16)), places)) == 1

import pytest

from sa2va_bento.engine.cuda_graphs import bucket, buckets


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

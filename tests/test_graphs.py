import pytest

from sa2va_bento.engine.graphs import bucket


@pytest.mark.parametrize(
    ("size", "smallest", "most", "expected"),
    [(1, 1, 16, 1), (3, 1, 16, 4), (16, 1, 16, 16), (9, 1, 12, 12), (200, 256, 4096, 256), (257, 256, 4096, 512)],
)
def test_sizes_are_rounded_up_to_few(size: int, smallest: int, most: int, expected: int) -> None:
    assert bucket(size, smallest, most) == expected

"""LoRA's products of several adapters in one step are those of each alone."""

import pytest
import torch

from sa2va_bento.model.low_rank import LowRank, Rows, Runs, share_of_replies

CPU = torch.device("cpu")


@pytest.fixture
def change() -> LowRank:
    """Of adapters 1 and 3, of rank 2 and 4; adapter 2 does not change this projection."""
    torch.manual_seed(0)
    return LowRank.of({1: (torch.randn(2, 5), torch.randn(7, 2)), 3: (torch.randn(4, 5), torch.randn(7, 4))})


def expected(change: LowRank, numbers: list[int], product: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    rows = []
    for number, row, x in zip(numbers, product, inputs, strict=True):
        span = change.spans.get(number)
        rows.append(row if span is None else row + change.up[:, span] @ (change.down[span] @ x))
    return torch.stack(rows)


@pytest.mark.parametrize("numbers", [[0, 1, 2, 3, 3, 0, 1], [3] * 7, [0] * 7, [2] * 7, [1, 1, 1, 0, 0, 3, 3]])
def test_each_token_gets_its_adapters_share(numbers: list[int], change: LowRank) -> None:
    product, inputs = torch.randn(7, 7), torch.randn(7, 5)
    wanted = expected(change, numbers, product, inputs)
    rows = Rows(torch.tensor(numbers)).add(change, product.clone(), inputs)
    torch.testing.assert_close(rows, wanted)
    for share in (share_of_replies(numbers, CPU), Runs.of(numbers, [1] * 7)):
        assert (share is None) == (not any(numbers))
        if share:
            torch.testing.assert_close(share.add(change, product.clone(), inputs), wanted)


def test_runs_follow_the_pieces_and_their_last_tokens(change: LowRank) -> None:
    numbers, counts = [1, 0, 3], [3, 2, 2]
    runs = Runs.of(numbers, counts)
    assert runs
    product, inputs = torch.randn(7, 7), torch.randn(7, 5)
    each = [number for number, count in zip(numbers, counts, strict=True) for _ in range(count)]
    torch.testing.assert_close(runs.add(change, product.clone(), inputs), expected(change, each, product, inputs))
    last = [2, 4, 6]
    torch.testing.assert_close(
        runs.of_wanted().add(change, product[last].clone(), inputs[last]),
        expected(change, numbers, product[last], inputs[last]),
    )

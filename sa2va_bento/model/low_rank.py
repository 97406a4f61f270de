"""LoRA's products beside those of the language model's layers, for tokens of several adapters in one step (the idea of
Punica, Chen et al. 2023, and S-LoRA, Sheng et al. 2023): W x is computed for all tokens together, s B (A x) is added to
those of the adapter's.

Every projection holds the matrices of all adapters as one: their A below each other, their B beside each other. A step
that reads prompts takes each run of tokens through its adapter's part of them. A step of replies takes its few tokens
through the whole and drops what is another adapter's: three kernels a projection, however many adapters there are, of
shapes that don't depend on who asks, as a CUDA graph needs it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

BASE = 0
"""Number of the model without an adapter."""


@dataclass(frozen=True)
class LowRank:
    """All adapters' changes of one projection: `down` (R, in) and `up` (out, R), the scales in it, and whose each of
    the R numbers between them is (R,). `spans` has each adapter's part of R, by its number."""

    down: Tensor
    up: Tensor
    owners: Tensor
    spans: Mapping[int, slice]

    @classmethod
    def of(cls, changes: Mapping[int, tuple[Tensor, Tensor]]) -> "LowRank":
        """Of each adapter's A (r, in) and B (out, r), by the adapter's number."""
        spans: dict[int, slice] = {}
        place = 0
        for number, (down, _) in changes.items():
            spans[number] = slice(place, place + len(down))
            place += len(down)
        downs, ups = zip(*changes.values(), strict=True)
        owners = torch.cat([torch.full((len(down),), number) for number, (down, _) in changes.items()])
        return cls(torch.cat(downs), torch.cat(ups, dim=1), owners.to(downs[0].device), spans)

    @property
    def numbers(self) -> int:
        """How many it holds."""
        return self.down.numel() + self.up.numel()


Projections = Mapping[str, LowRank]
"""Of one layer, by the names of `sa2va_bento.model.decoder.Layer`: those that an adapter changes."""


class Share(Protocol):
    """Which adapter each token of a step is for."""

    def add(self, change: LowRank, product: Tensor, inputs: Tensor) -> Tensor:
        """A projection's product (N, out) of inputs (N, in), with what the tokens' adapters add to it."""
        ...

    def of_wanted(self) -> "Share":
        """Of the tokens alone that a step's results are wanted of."""
        ...


@dataclass(frozen=True)
class Runs:
    """Of a step that reads prompts: runs of tokens with one adapter's number each, those without one left out; and the
    same of the wanted tokens."""

    runs: tuple[tuple[int, slice], ...]
    wanted: tuple[tuple[int, slice], ...] = ()

    @classmethod
    def of(cls, numbers: Sequence[int], counts: Sequence[int]) -> "Runs | None":
        """Of pieces of `counts` tokens for the adapters of these numbers, of each of which the last one is wanted; None
        where there is no adapter."""
        if not any(numbers):
            return None
        return cls(_runs(numbers, counts), _runs(numbers, [1] * len(numbers)))

    def add(self, change: LowRank, product: Tensor, inputs: Tensor) -> Tensor:
        for number, tokens in self.runs:
            if span := change.spans.get(number):
                product[tokens].addmm_(inputs[tokens] @ change.down[span].T, change.up[:, span].T)
        return product

    def of_wanted(self) -> "Runs":
        return Runs(self.wanted)


@dataclass(frozen=True)
class Rows:
    """Of a step of replies: the number of each token's adapter, (N,)."""

    numbers: Tensor

    def add(self, change: LowRank, product: Tensor, inputs: Tensor) -> Tensor:
        is_own = (self.numbers[:, None] == change.owners).to(inputs.dtype)
        return torch.addmm(product, (inputs @ change.down.T) * is_own, change.up.T)

    def of_wanted(self) -> "Rows":
        return self


def share_of_replies(numbers: Sequence[int], device: torch.device) -> Share | None:
    """Of a token each for the adapters of these numbers; None where there is no adapter."""
    if not any(numbers):
        return None
    if len(set(numbers)) == 1:
        return Runs.of(numbers, [1] * len(numbers))
    return Rows(torch.tensor(numbers, device=device))


def _runs(numbers: Sequence[int], counts: Sequence[int]) -> tuple[tuple[int, slice], ...]:
    runs: list[tuple[int, slice]] = []
    place = 0
    for number, some in groupby(zip(numbers, counts, strict=True), key=lambda piece: piece[0]):
        length = sum(count for _, count in some)
        if number != BASE:
            runs.append((number, slice(place, place + length)))
        place += length
    return tuple(runs)

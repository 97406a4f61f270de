"""Chooses next tokens, for a whole batch at once and on the device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sa2va_bento.engine.sequence import Sequence
from sa2va_bento.engine.transfer import on_device


@dataclass(frozen=True)
class SamplingBatch:
    """Each row's temperature (0 is greedy), nucleus and random number: (B,) float32 each."""

    temperature: Tensor
    top_p: Tensor
    uniform: Tensor

    @classmethod
    def of(cls, sequences: list[Sequence], device: torch.device) -> "SamplingBatch | None":
        """None when every sequence is greedy: there is nothing to draw then."""
        if not any(sequence.sampling.temperature for sequence in sequences):
            return None
        rows = [(s.sampling.temperature, s.sampling.top_p, s.uniform()) for s in sequences]
        return cls(*on_device([list(row) for row in zip(*rows, strict=True)], device).float())


def choose(logits: Tensor, sampling: SamplingBatch | None) -> Tensor:
    """Next tokens (B,) from logits (B, V)."""
    likeliest = logits.argmax(dim=-1)
    if sampling is None:
        return likeliest
    return torch.where(sampling.temperature > 0, _draw(logits.float(), sampling), likeliest)


def _draw(logits: Tensor, sampling: SamplingBatch) -> Tensor:
    """Inverts the distribution function of the nucleus at each row's random number."""
    scaled = logits / sampling.temperature.clamp(min=1e-4)[:, None]
    probabilities, order = scaled.softmax(dim=-1).sort(dim=-1, descending=True)
    cumulative = probabilities.cumsum(dim=-1)
    in_nucleus = cumulative - probabilities < sampling.top_p[:, None]  # the likeliest always is
    mass = (probabilities * in_nucleus).sum(dim=-1, keepdim=True)
    place = (cumulative < sampling.uniform[:, None] * mass).sum(dim=-1, keepdim=True)
    last = in_nucleus.sum(dim=-1, keepdim=True) - 1
    return order.gather(-1, torch.minimum(place, last))[:, 0]

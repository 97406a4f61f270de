"""Auxiliary loss of the language model: two heads of a layer learn to look at the part of the picture that a name
means, or that the next token speaks of.

To find the object of a question among image tokens is the one thing that all answers need and that a small model is
slow to hit upon by itself: thousands of steps pass at chance before the first answer tells it that looking pays. The
scene knows where each object is, so the heads are told.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from training.data.picture_shards import INK
from training.model_config import CELLS, LLM_HEADS, LLM_KV_HEADS
from training.objectives.token_head import place_and_size
from training.questions.packing import Packed

NAMING_LAYER, LAYER, COMPARING_LAYER = 2, 3, 4  # of six: where a name finds what it means, where an answer does, and
# where it sets two objects against each other
COMPARED = 3  # right of, below, larger
HEADS = (0, 3)  # of six; the two read different keys
COVERED = 0.1  # share of an image token from which on it is an object's


Points = list[tuple[int, int, int]]
"""(row, position, the objects that this position is to look at, one bit each)."""


class Pointing:
    """Watches a layer as it runs."""

    def __init__(self, language_model: Any, layer: int) -> None:
        self._attention = language_model.model.layers[layer].self_attn
        self._attention.register_forward_pre_hook(self._watch, with_kwargs=True)
        self._seen: tuple[Tensor, tuple[Tensor, Tensor]] | None = None
        language_model.model.layers[layer + 1].register_forward_pre_hook(self._watch_after)
        self._after: Tensor | None = None

    def _watch_after(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._after = args[0]

    def _watch(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._seen = kwargs["hidden_states"], kwargs["position_embeddings"]

    def loss(self, packed: Packed, points: Points, cells: Tensor) -> Tensor:
        """Mean over `points` of -log of the share of attention that falls on the objects' image tokens, of the
        last forward pass, which was over `packed`; `cells` (B, N, 64) bool says which tokens are whose."""
        assert self._seen is not None
        rows, places, objects = torch.tensor(points).unbind(1)
        meant = (objects[:, None] >> torch.arange(cells.shape[1])) & 1  # (P, N)
        there = (cells[rows] & meant.bool()[:, :, None]).any(1)  # (P, 64)
        wanted = torch.zeros(len(rows), packed.ids.shape[1], dtype=torch.bool)
        wanted[:, packed.image_places] = there
        mask = packed.mask()[rows, 0, places]
        shares = [(self._scores(head)[rows, places] + mask).log_softmax(-1) for head in HEADS]  # each (P, L)
        on_it = torch.stack(shares).masked_fill(~wanted, -torch.inf)[:, there.any(-1)].logsumexp(-1)
        return -on_it.mean()

    def place_loss(self, points: Points, things: Tensor, head: nn.Linear) -> Tensor:
        """Squared error of the place and size (`place_and_size`) that `head` reads after the layer at the points that
        mean one object; `things` (B, N, 8) as in a batch. What was looked at is then brought along."""
        assert self._after is not None
        rows, places, objects = torch.tensor(points).unbind(1)
        bits = (objects[:, None] >> torch.arange(things.shape[1])) & 1
        is_one = bits.sum(-1) == 1
        if not is_one.any():
            return self._after.new_zeros(())
        meant = things[rows, bits.argmax(-1)][is_one]
        hidden = self._after[rows[is_one], places[is_one]].float()
        wanted = place_and_size(meant[:, 2:4], meant[:, 6:8] - meant[:, 4:6])
        return functional.mse_loss(head(functional.rms_norm(hidden, hidden.shape[-1:])), wanted)

    def difference_loss(self, pairs: list[tuple[int, int, int, int]], things: Tensor, head: nn.Linear) -> Tensor:
        """Squared error of how two objects differ, which `head` reads after the layer where the answer about them
        begins (`pairs` as in `Packed`): in place across and down, and in the logarithm of their boxes' areas."""
        assert self._after is not None
        rows, places, first, second = torch.tensor(pairs).unbind(1)
        a, b = things[rows, first], things[rows, second]
        areas = [(thing[:, 6:8] - thing[:, 4:6]).clamp(min=1e-3).log2().sum(-1) for thing in (a, b)]
        wanted = torch.stack([*(4 * (a - b)[:, 2:4]).unbind(-1), areas[0] - areas[1]], -1)
        hidden = self._after[rows, places].float()
        return functional.mse_loss(head(functional.rms_norm(hidden, hidden.shape[-1:])), wanted)

    def _scores(self, head: int) -> Tensor:
        """Attention's logits (B, L, L) of a head."""
        assert self._seen is not None
        hidden, (cos, sin) = self._seen
        depth: int = self._attention.head_dim
        query = _head_of(self._attention.q_proj, hidden.float(), head, depth)
        key = _head_of(self._attention.k_proj, hidden.float(), head * LLM_KV_HEADS // LLM_HEADS, depth)
        query, key = apply_rotary_pos_emb(query, key, cos.float(), sin.float())
        return (query @ key.transpose(-1, -2))[:, 0] * depth**-0.5


def _head_of(projection: nn.Linear, hidden: Tensor, head: int, depth: int) -> Tensor:
    """What a projection gives one head, (B, 1, L, depth)."""
    rows = slice(head * depth, (head + 1) * depth)
    return functional.linear(hidden, projection.weight[rows], projection.bias[rows])[:, None]


def cells_of(labels: Tensor, things: Tensor) -> Tensor:
    """Which image tokens (B, N, 64) the objects of labels (B, S, S) and things (B, N, 8) cover."""
    owners = functional.one_hot(labels % INK, things.shape[1] + 1).permute(0, 3, 1, 2)[:, 1:].float()
    return functional.avg_pool2d(owners, labels.shape[-1] // CELLS).flatten(2) > COVERED

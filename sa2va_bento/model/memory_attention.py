"""SAM2's memory attention where no gradients are wanted: the in-tree module's arithmetic, without what it computes
again for every frame.

A frame attends to up to eleven maps of memory. The in-tree module projects and rotates (rotary position embedding) all
of them anew for each frame, pair by pair, and that, not attention, is most of its time. Here a map's keys and values
are projected and rotated once, when it is first read. What changes with time is the temporal embedding, which is added
before the projection: since both that and the rotation are linear, its part of the keys is a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoMemoryAttentionLayer, Sam2VideoRoPEAttention

MOST_KEPT = 4096
"""Places of a map times layers, up to which keys and values are kept: 512 in the embedded model, which takes 256 KiB a
map and object. SAM2's own 16,384 would take 32 MiB, and there attention itself is what costs."""

Projected = list[tuple[Tensor, Tensor]]
"""Keys (B, heads, h * w, c), rotated but without their time, and values, for each layer."""


@dataclass(frozen=True)
class Tables:
    """What depends on nothing but the model and the size of its maps: rotations (h * w, c / 2) complex64, where each
    place of a frame (1, h * w, d) and of a map (h * w, 1, m) is, and each layer's rotated keys (times, heads, h * w, c)
    of the temporal embeddings."""

    rotation: Tensor
    frame_positions: Tensor
    map_positions: Tensor
    times: tuple[Tensor, ...]


class MemoryAttention:
    """Memory attention over one clip. `positions` are those of a frame (h * w, 1, d) and of a map (h * w, 1, m)."""

    def __init__(self, sam: Sam2VideoModel, frame_positions: Tensor, map_positions: Tensor) -> None:
        self._module = sam.memory_attention
        self._layers = cast("Sequence[Sam2VideoMemoryAttentionLayer]", list(self._module.layers))
        rotation = self._rotation(frame_positions)
        self._tables = Tables(
            rotation=rotation,
            frame_positions=0.1 * frame_positions.transpose(0, 1),
            map_positions=map_positions,
            times=tuple(_time_keys(layer.cross_attn_image, sam, rotation) for layer in self._layers),
        )
        self._kept: dict[int, Projected] = {}

    def forget(self, frame: int) -> None:
        """Of a frame that no later one reads."""
        self._kept.pop(frame, None)

    def __call__(
        self, embedding: Tensor, maps: Sequence[tuple[int, int, Tensor]], pointers: Tensor, pointer_times: Tensor
    ) -> Tensor:
        """A frame's embedding (B, d, h, w) after attention to memory, the same shape.

        Args:
            embedding: The frame's.
            maps: For each map its frame, its row in the table of temporal embeddings, and itself (h * w, B, m).
            pointers: (P, B, m).
            pointer_times: Their temporal positions (P, 1, m).
        """
        dtype, (_, _, height, width) = embedding.dtype, embedding.shape
        memories = [(row, self._project(frame, kept.to(dtype))) for frame, row, kept in maps]
        tokens = (pointers.to(dtype).transpose(0, 1), (pointers + pointer_times).to(dtype).transpose(0, 1))
        queries = embedding.flatten(2).transpose(1, 2) + self._tables.frame_positions
        for number, layer in enumerate(self._layers):
            queries = queries + self._attend_to_itself(layer, layer.layer_norm1(queries))
            keys, values = self._memory(number, layer, memories, *tokens)
            found = self._attend(layer.cross_attn_image, layer.layer_norm2(queries), keys, values)
            queries = queries + found
            queries = queries + layer.linear2(layer.activation(layer.linear1(layer.layer_norm3(queries))))
        return self._module.layer_norm(queries).transpose(1, 2).unflatten(-1, (height, width))

    def _rotation(self, frame_positions: Tensor) -> Tensor:
        cos, sin = self._module.rotary_emb(frame_positions, self._module.position_ids)  # (1, h * w, c), in pairs
        return torch.complex(cos[0, :, ::2].float(), sin[0, :, ::2].float())

    def _project(self, frame: int, kept: Tensor) -> Projected:
        """Keys and values of a frame's map (h * w, B, m)."""
        if (found := self._kept.get(frame)) is not None:
            return found
        placed, plain = (kept + self._tables.map_positions).transpose(0, 1), kept.transpose(0, 1)
        attentions = [layer.cross_attn_image for layer in self._layers]
        projected = [
            (_rotated(_heads(a, a.k_proj(placed)), self._tables.rotation), _heads(a, a.v_proj(plain)))
            for a in attentions
        ]
        if len(kept) * len(self._layers) <= MOST_KEPT:
            self._kept[frame] = projected
        return projected

    def _memory(
        self,
        number: int,
        layer: Sam2VideoMemoryAttentionLayer,
        memories: Sequence[tuple[int, Projected]],
        pointers: Tensor,
        timed: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """A layer's keys and values of all maps and pointers (B, P, m), with and without their times; these have no
        place, and are not rotated."""
        attention, times = layer.cross_attn_image, self._tables.times[number]
        keys = [projected[number][0] + times[row] for row, projected in memories]
        values = [projected[number][1] for _, projected in memories]
        return (
            torch.cat([*keys, _heads(attention, attention.k_proj(timed))], dim=2),
            torch.cat([*values, _heads(attention, attention.v_proj(pointers))], dim=2),
        )

    def _attend_to_itself(self, layer: Sam2VideoMemoryAttentionLayer, queries: Tensor) -> Tensor:
        attention = layer.self_attn
        keys = _rotated(_heads(attention, attention.k_proj(queries)), self._tables.rotation)
        return self._attend(attention, queries, keys, _heads(attention, attention.v_proj(queries)))

    def _attend(self, attention: Sam2VideoRoPEAttention, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        asked = _rotated(_heads(attention, attention.q_proj(queries)), self._tables.rotation)
        found = scaled_dot_product_attention(asked, keys, values, scale=attention.scaling)
        return attention.o_proj(found.transpose(1, 2).flatten(2))


def _time_keys(attention: Sam2VideoRoPEAttention, sam: Sam2VideoModel, rotation: Tensor) -> Tensor:
    """What each temporal embedding adds to rotated keys: (times, heads, h * w, c). Without the projection's bias, which
    the keys have already."""
    embeddings = sam.memory_temporal_positional_encoding.flatten(1)  # (times, m)
    projected = nn.functional.linear(embeddings, attention.k_proj.weight)[:, None]
    spread = projected.expand(-1, len(rotation), -1)
    return _rotated(_heads(attention, spread), rotation)


def _heads(attention: Sam2VideoRoPEAttention, tokens: Tensor) -> Tensor:
    """(B, N, heads * c) to (B, heads, N, c)."""
    return tokens.unflatten(-1, (attention.num_attention_heads, attention.head_dim)).transpose(1, 2)


def _rotated(tokens: Tensor, rotation: Tensor) -> Tensor:
    """Rotary position embedding of pairs of channels, computed in float32 as upstream does."""
    pairs = torch.view_as_complex(tokens.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).type_as(tokens)

"""The language model's layers as one flat function over a ragged batch, with fused projections.

A small model's decode step is mostly the wrappers around its kernels, and many of the kernels are tiny. Here the layers
of an in-tree text model are read once for their weights: the projections of queries, keys and values are one matrix, as
are gate and up; residuals are added by the product that precedes them. The arithmetic is that of the in-tree modules,
which still compute whatever this can't read: quantised layers, layers spread over devices, layers of another kind.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, silu

from sa2va_bento.model.attention import RaggedAttention
from sa2va_bento.model.low_rank import Projections, Share

Adapted = Callable[[str, Tensor, Tensor], Tensor]
"""What makes of a layer's product, given the projection's name and inputs, that of the tokens' adapters."""


@dataclass(frozen=True)
class Layer:
    """A layer's weights, matrices as (out, in): `qkv` is that of all heads' queries, then keys, then values; `gate_up`
    the gate's, then the other half's."""

    norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    epsilon: float


class FlatDecoder:
    """The layers of a text model, in their order. Its weights are the model's own, from now on laid out as is best."""

    def __init__(self, model: Any, layers: list[Layer]) -> None:
        config = model.config
        self._model, self._layers = model, layers
        self.adapters: Sequence[Projections] = ()
        """Of each layer, what adapters add to its projections; there are none without adapters."""
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._width: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    @classmethod
    def of(cls, model: Any) -> "FlatDecoder | None":
        """None where the layers are of a kind that is not read here."""
        if not all(_is_readable(layer) for layer in model.layers):
            return None
        decoder = cls(model, [])
        if 2 * model.rotary_emb.inv_freq.numel() != decoder._width:  # some turn a part of a head only
            return None
        decoder._layers = [_read(layer) for layer in model.layers]
        return decoder

    def __call__(
        self,
        hidden: Tensor,
        positions: Tensor,
        attention: RaggedAttention,
        added: Sequence[Tensor] = (),
        wanted: Tensor | None = None,
        share: Share | None = None,
    ) -> Tensor:
        """Hidden states (N, H) at positions (N,) or (N, P) after all layers and the model's own norm; `added` (N, H)
        is added to what the first layers give (DeepStack). Of `wanted` tokens alone, (M, H), where that is given: the
        last layer reads the others only for their keys and values. `share` says which tokens are an adapter's."""
        cos, sin = self._rotation(hidden, positions)
        for number, layer in enumerate(self._layers):
            adapted = self._adapted(number, share)
            attended = self._attend(number, layer, hidden, cos, sin, attention, adapted)
            if wanted is not None and number == len(self._layers) - 1:
                hidden, attended, added = hidden[wanted], attended[wanted], [part[wanted] for part in added]
                adapted = self._adapted(number, share and share.of_wanted())
            hidden = adapted("output", torch.addmm(hidden, attended, layer.output.T), attended)
            hidden = _perceptron(layer, hidden, adapted)
            if number < len(added):
                hidden = hidden + added[number]
        return self._model.norm(hidden)

    def _adapted(self, number: int, share: Share | None) -> Adapted:
        """What makes of a layer's product, given the projection's name and inputs, that of the tokens' adapters."""
        if share is None:
            return _unchanged
        changes, mixed = self.adapters[number], share

        def add(name: str, product: Tensor, inputs: Tensor) -> Tensor:
            return mixed.add(changes[name], product, inputs) if name in changes else product

        return add

    def _attend(
        self,
        number: int,
        layer: Layer,
        hidden: Tensor,
        cos: Tensor,
        sin: Tensor,
        attention: RaggedAttention,
        adapted: Adapted,
    ) -> Tensor:
        """(N, heads * D)."""
        normed = _normed(hidden, layer.norm, layer)
        states = adapted("qkv", linear(normed, layer.qkv, layer.qkv_bias), normed)
        del normed
        states = states.view(len(hidden), -1, self._width)  # (N, heads and twice the KV heads, D)
        turned, value = states[:, : -self._kv_heads], states[:, -self._kv_heads :]
        if layer.query_norm is not None and layer.key_norm is not None:
            query, key = turned[:, : self._heads], turned[:, self._heads :]
            turned = torch.cat([_normed(query, layer.query_norm, layer), _normed(key, layer.key_norm, layer)], dim=1)
        turned = torch.addcmul(turned * cos, _swap_halves(turned), sin)
        query, key = turned[:, : self._heads], turned[:, self._heads :]
        return attention.attend(number, query, key, value, self._width**-0.5).reshape(len(hidden), -1)

    def _rotation(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (N, 1, D) of rotary positions, the sines with the signs of the halves that they meet.
        Qwen2.5-VL's are of three axes, of which each takes some of the widths in turn."""
        axes = positions.T[:, None] if positions.ndim == 2 else positions[None]
        cos, sin = (self._merged(angles)[0, :, None] for angles in self._model.rotary_emb(hidden[None], axes))
        first, second = sin.chunk(2, dim=-1)
        return cos, torch.cat([-first, second], dim=-1)

    def _merged(self, angles: Tensor) -> Tensor:
        if angles.ndim == 3:
            return angles
        sections = self._model.config.rope_parameters["mrope_section"] * 2
        parts = angles.split(sections, dim=-1)
        return torch.cat([part[number % 3] for number, part in enumerate(parts)], dim=-1)


def _perceptron(layer: Layer, hidden: Tensor, adapted: Adapted) -> Tensor:
    """Hidden states (N, H) after a layer's second half."""
    normed = _normed(hidden, layer.mlp_norm, layer)
    gate, up = adapted("gate_up", linear(normed, layer.gate_up), normed).chunk(2, dim=-1)
    del normed
    inner = silu(gate) * up
    return adapted("down", torch.addmm(hidden, inner, layer.down.T), inner)


def _unchanged(name: str, product: Tensor, inputs: Tensor) -> Tensor:
    return product


def _normed(states: Tensor, weight: Tensor, layer: Layer) -> Tensor:
    return rms_norm(states, weight.shape, weight, layer.epsilon)


def _swap_halves(states: Tensor) -> Tensor:
    first, second = states.chunk(2, dim=-1)
    return torch.cat([second, first], dim=-1)


PROJECTIONS = (
    ({"q_proj", "k_proj", "v_proj", "o_proj"}, {"q_norm", "k_norm"}),
    ({"qkv_proj", "o_proj"}, set[str]()),
)
"""Children of attention that are known: those that it must have, and those that it may have."""
MLPS = ({"gate_proj", "up_proj", "down_proj", "act_fn"}, {"gate_up_proj", "down_proj", "activation_fn"})
LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
DROPOUTS = {"resid_attn_dropout", "resid_mlp_dropout", "rotary_emb"}
"""Children that do nothing in a model that is asked."""


def _is_readable(layer: Any) -> bool:
    if _children(layer) != LAYER:
        return False
    attention, mlp = layer.self_attn, layer.mlp
    has_known = any(must <= _children(attention) <= must | may for must, may in PROJECTIONS)
    linears = [child for part in (attention, mlp) for name, child in part.named_children() if name.endswith("_proj")]
    return (
        has_known
        and _children(mlp) in MLPS
        and all(type(child) is nn.Linear for child in linears)
        and attention.o_proj.bias is None is mlp.down_proj.bias
        and not getattr(attention, "sliding_window", None)
        and "SiLU" in type(getattr(mlp, "act_fn", None) or mlp.activation_fn).__name__
        and not any(hasattr(module, "_hf_hook") for module in layer.modules())
    )


def _children(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_children()} - DROPOUTS


def projections(layer: Any) -> Mapping[str, list[nn.Linear]]:
    """The modules behind each matrix of `Layer`, in the order of its rows."""
    attention, mlp = layer.self_attn, layer.mlp
    return {
        "qkv": [attention.qkv_proj]
        if hasattr(attention, "qkv_proj")
        else _some(attention, "q_proj", "k_proj", "v_proj"),
        "output": [attention.o_proj],
        "gate_up": [mlp.gate_up_proj] if hasattr(mlp, "gate_up_proj") else _some(mlp, "gate_proj", "up_proj"),
        "down": [mlp.down_proj],
    }


def _read(layer: Any) -> Layer:
    attention, parts = layer.self_attn, projections(layer)
    norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    biases: list[Any] = [projection.bias for projection in parts["qkv"]]
    return Layer(
        norm=layer.input_layernorm.weight,
        qkv=fuse(parts["qkv"]),
        qkv_bias=None if biases[0] is None else torch.cat(biases),
        query_norm=norms[0] and norms[0].weight,
        key_norm=norms[1] and norms[1].weight,
        output=fuse(parts["output"]),
        mlp_norm=layer.post_attention_layernorm.weight,
        gate_up=fuse(parts["gate_up"]),
        down=fuse(parts["down"]),
        epsilon=layer.input_layernorm.variance_epsilon,
    )


def _some(module: Any, *names: str) -> list[nn.Linear]:
    return [getattr(module, name) for name in names]


def lay_out(module: nn.Module) -> None:
    """Lays every matrix of a module out as is best for products with few rows."""
    for part in module.modules():
        if type(part) is nn.Linear:
            fuse([part])


def fuse(projections: Sequence[nn.Linear]) -> Tensor:
    """One matrix (out, in) of all projections' outputs, of which their weights are parts from now on.

    float32 on a CPU lies transposed: its products with few rows take 0.5 to 0.8 of the time (bfloat16's don't).
    """
    weights = [projection.weight.data for projection in projections]
    first, joined = weights[0], weights[0] if len(weights) == 1 else torch.cat(weights)
    if first.device.type == "cpu" and first.dtype == torch.float32:
        joined = joined.T.contiguous().T
    for projection, part in zip(projections, joined.split([len(weight) for weight in weights]), strict=True):
        projection.weight.data = part
    return joined

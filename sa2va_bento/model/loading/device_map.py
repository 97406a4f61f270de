"""One model over several GPUs: which part goes where, and moving what passes between them, which accelerate does.

Pictures, embeddings, the head and SAM2 stay on the first device; the language model's layers, whole and in their
order, go on with it and then with the others. A layer's share of the KV cache lies where the layer does.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from accelerate import dispatch_model
from torch import nn

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.loading.memory import GIB, MemoryEstimate, unfilled, weight_bytes
from sa2va_bento.model.loading.quantization import Quantization

DECODER_LAYER = re.compile(r"(.*\.)?language_model\.(.*\.)?layers\.\d+")

DeviceMap = Mapping[str, torch.device]
"""Modules that cover the model to their devices."""


def decoder_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The language model's layers, by name and in their order."""
    return [(name, module) for name, module in model.named_modules() if DECODER_LAYER.fullmatch(name)]


def layer_devices(model: nn.Module) -> list[torch.device]:
    """Where each of the language model's layers computes."""
    return [next(layer.parameters()).device for _, layer in decoder_layers(model)]


@dataclass(frozen=True)
class Share:
    """What a model needs, in bytes: the parts that stay together, each layer with its cache, and what every device
    needs to compute at all."""

    together: int
    layer: int
    layers: int
    anywhere: int

    @classmethod
    def of(cls, needed: MemoryEstimate, layer_weights: int, layers: int) -> "Share":
        layer = layer_weights + needed.kv_cache // layers
        return cls(needed.total - needed.activations - layer * layers, layer, layers, needed.activations)


def map_devices(model: nn.Module, share: Share, free: Mapping[torch.device, int]) -> DeviceMap:
    """Fills the devices in their order, up to the bytes that are free on each.

    Raises:
        CheckpointError: they are too small together, with the numbers; or the first is for what stays on it.
    """
    names = [name for name, _ in decoder_layers(model)]
    first, *_ = free
    places: list[torch.device] = []
    for device, bytes_free in free.items():
        room = bytes_free - share.anywhere - (share.together if device == first else 0)
        if device == first and room < 0:
            raise CheckpointError(
                f"{first} has {bytes_free / GIB:.2f} GiB free; pictures, embeddings, SAM2 and caches need "
                f"{(share.together + share.anywhere) / GIB:.2f} on it"
            )
        places += [device] * min(max(room, 0) // share.layer, share.layers - len(places))
    if len(places) < share.layers:
        listed = ", ".join(f"{device} {size / GIB:.2f}" for device, size in free.items())
        raise CheckpointError(
            f"of {share.layers} layers ({share.layer / GIB:.2f} GiB each with its cache) {len(places)} fit; GiB free: "
            f"{listed}"
        )
    layers = dict(zip(names, places, strict=True))
    return {name: layers.get(name, first) for name in _cover(model, names)}


def place(
    config: CheckpointConfig,
    needed: MemoryEstimate,
    budgets: Mapping[torch.device, int],
    element: int,
    kind: Quantization,
) -> DeviceMap:
    """Where the parts go, on devices of which each may give so many bytes.

    Raises:
        CheckpointError: what there is can't hold the model; with the numbers.
    """
    model = unfilled(config)
    layers = decoder_layers(model)
    share = Share.of(needed, weight_bytes(model, element, kind, f"{layers[0][0]}."), len(layers))
    return map_devices(model, share, budgets)


def _cover(model: nn.Module, layers: list[str], prefix: str = "") -> Iterator[str]:
    """Names of modules that cover the model, none of which holds a layer among other things."""
    for child, module in model.named_children():
        name = f"{prefix}{child}"
        if name in layers or not any(layer.startswith(f"{name}.") for layer in layers):
            yield name
        else:
            yield from _cover(module, layers, f"{name}.")


def device_of(tensor: str, parts: DeviceMap) -> torch.device:
    """Where a tensor goes."""
    name = tensor
    while name and name not in parts:
        name = name.rpartition(".")[0]
    return parts[name]


def dispatch(model: nn.Module, parts: DeviceMap) -> None:
    """Makes the modules, whose parameters are on their devices already, bring there what they are given. The cache is
    left where it is: each layer's part is on the layer's device."""
    first = next(iter(parts.values()))
    for name, device in parts.items():
        model.get_submodule(name).to(device)  # buffers that no checkpoint holds
    dispatch_model(model, dict(parts), main_device=first, skip_keys="past_key_values", force_hooks=True)

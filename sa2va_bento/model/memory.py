"""How much memory a checkpoint will need, told from its `config.json` alone."""

from dataclasses import dataclass

import psutil
import torch
from accelerate import init_empty_weights
from torch import nn
from transformers.initialization import no_init_weights

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.families import build_model
from sa2va_bento.model.family import Sa2VA
from sa2va_bento.model.quantization import BYTES, Quantization, layer_projections

GIB = 2**30
ACTIVATION_COPIES = 6
"""Tensors as wide as a layer's widest that are alive at once in a forward pass: a coarse upper bound."""


@dataclass(frozen=True)
class Workload:
    """What the engine is set to hold at once."""

    slots: int
    context: int
    max_prefill: int
    max_tiles: int
    max_images: int
    feature_cache_bytes: int
    prefix_cache_bytes: int = 0


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device."""

    weights: int
    kv_cache: int
    features: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.features + self.activations

    def __str__(self) -> str:
        parts = (("weights", self.weights), ("KV cache", self.kv_cache), ("feature and prefix caches", self.features))
        listed = ", ".join(f"{name} {size / GIB:.2f}" for name, size in (*parts, ("activations", self.activations)))
        return f"{self.total / GIB:.2f} GiB ({listed})"


def estimate(
    config: CheckpointConfig, element: int, workload: Workload, quantization: Quantization = "none"
) -> MemoryEstimate:
    """What a model of this configuration needs, `element` being the bytes of a number. Nothing is loaded."""
    return MemoryEstimate(
        weights=weight_bytes(unfilled(config), element, quantization),
        kv_cache=element * kv_elements(config) * workload.slots * workload.context,
        features=workload.feature_cache_bytes + workload.prefix_cache_bytes,
        activations=element * ACTIVATION_COPIES * _widest(config, workload),
    )


def parameter_counts(config: CheckpointConfig) -> dict[str, int]:
    """Parameters of each part, a tied head not counted twice."""
    model = unfilled(config)
    return {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}


def weight_bytes(model: nn.Module, element: int, quantization: Quantization, prefix: str = "") -> int:
    """What the parameters of a model take, or of the part of it whose names begin with `prefix`."""
    total = sum(parameter.numel() for name, parameter in model.named_parameters() if name.startswith(prefix))
    if quantization == "none":
        return element * total
    projections = (projection for name, projection in layer_projections(model) if name.startswith(prefix))
    quantised = sum(projection.weight.numel() for projection in projections)
    return element * (total - quantised) + int(BYTES[quantization] * quantised)


def unfilled(config: CheckpointConfig) -> Sa2VA:
    """The model without weights."""
    with init_empty_weights(include_buffers=False), no_init_weights():
        model = build_model(config)
    model.tie_head()
    return model


def kv_elements(config: CheckpointConfig) -> int:
    """Numbers that the cache holds for a token."""
    llm = config.llm
    width = getattr(llm, "head_dim", None) or llm.hidden_size // llm.num_attention_heads
    return 2 * llm.num_hidden_layers * llm.num_key_value_heads * width


def _widest(config: CheckpointConfig, workload: Workload) -> int:
    """Numbers in the widest tensor of the three towers' largest batches."""
    side = config.sam2_shape.image_size // 4
    return max(
        workload.max_tiles * config.elements_per_tile,
        workload.max_prefill * max(config.llm.intermediate_size, workload.context),
        workload.max_images * side * side * 4 * config.sam2_shape.embed_dim,
    )


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def refuse_if_too_large(needed: MemoryEstimate, device: torch.device) -> None:
    """Raises CheckpointError, with the numbers, when the device can't hold the model."""
    free = free_memory(device)
    if needed.total > free:
        raise CheckpointError(
            f"the model needs {needed}, {device} has {free / GIB:.2f} GiB free; "
            "SA2VA_SLOTS, SA2VA_CONTEXT, SA2VA_FEATURE_CACHE_MB, SA2VA_PREFIX_CACHE_MB and SA2VA_QUANTIZATION make it "
            "smaller"
        )

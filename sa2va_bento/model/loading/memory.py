"""How much memory a checkpoint will need, told from its `config.json` alone."""

from dataclasses import dataclass

import psutil
import torch
from accelerate import init_empty_weights
from torch import nn
from transformers.initialization import no_init_weights

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.base import Sa2VA
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.loading.quantization import BYTES, Quantization, layer_projections
from sa2va_bento.model.registry import build_model

GIB = 2**30
TILES, HIERA, NECK, MASKS, PROMPT = 3.4, 12.4, 4.4, 1.05, 4.0
"""Numbers alive at once, at the peak of each stage, for each number of its measure (`activations`). Measured by
`benchmarks/activations.py` on the widths of Sa2VA-1B, SAM2's neck on those of the embedded model; depth adds nothing
without gradients."""
MARGIN = 1.25
"""For what kernels and the allocator need beside the tensors."""


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
    max_masks: int = 32


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
        activations=int(element * MARGIN * max(activations(config, workload).values())),
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


def activations(config: CheckpointConfig, workload: Workload) -> dict[str, float]:
    """Numbers alive at the peak of each stage of the engine, at most; one stage runs at a time.

    `prompt` is that of as many prompts at once as there are slots, all of them near the end of their context: attention
    gathers the keys and values of their rows, repeated for each query head.
    """
    llm, shape, side = config.llm, config.sam2_shape, config.sam2_shape.image_size // 4
    head = getattr(llm, "head_dim", None) or llm.hidden_size // llm.num_attention_heads
    gathered = 2 * workload.slots * workload.context * head * (llm.num_attention_heads + llm.num_key_value_heads)
    mask = workload.max_prefill * workload.context
    return {
        "tiles": TILES * workload.max_tiles * config.elements_per_tile,
        "sam2": workload.max_images * side * side * max(HIERA * shape.embed_dim, NECK * shape.d_model),
        "masks": MASKS * workload.max_masks * side * side * shape.d_model,
        "prompt": PROMPT * workload.max_prefill * llm.intermediate_size + gathered + mask,
    }


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def device_memory(device: torch.device) -> tuple[int, int]:
    """Bytes in use and in all on a device, by whatever process."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total - free, total
    memory = psutil.virtual_memory()
    return memory.total - memory.available, memory.total


def refuse_if_too_large(needed: MemoryEstimate, device: torch.device) -> None:
    """Raises CheckpointError, with the numbers, when the device can't hold the model."""
    free = free_memory(device)
    if needed.total > free:
        raise CheckpointError(
            f"the model needs {needed}, {device} has {free / GIB:.2f} GiB free; "
            "SA2VA_SLOTS, SA2VA_CONTEXT, SA2VA_FEATURE_CACHE_MB, SA2VA_PREFIX_CACHE_MB and SA2VA_QUANTIZATION make it "
            "smaller"
        )

"""How much memory a checkpoint will need, told from its `config.json` alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch
from accelerate import init_empty_weights
from torch import nn
from transformers.initialization import no_init_weights

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
class Measures:
    """What the memory of a model's computations depends on.

    `tile` is the numbers in the widest tensor of the vision tower, for each tile; `kv` those that the cache holds for a
    token, in `layers` layers; `sharing` the query heads to each head of keys; `tiles` and `picture_tokens` the most
    that a picture has; `positions` the longest context. SAM2's measures are of Hiera-L unless given.
    """

    tile: int
    intermediate: int
    layers: int
    kv: int
    sharing: int
    tiles: int
    picture_tokens: int
    positions: int
    sam2_side: int = 256
    sam2_embed: int = 144
    sam2_model: int = 256


def measures_of(config: CheckpointConfig, max_tiles: int | None = None) -> Measures:
    """Those of a checkpoint, whose pictures are cut into `max_tiles` tiles at most."""
    llm, shape = config.llm, config.sam2_shape
    tiles, tokens = config.largest_picture(max_tiles)
    return Measures(
        tile=config.elements_per_tile,
        intermediate=llm.intermediate_size,
        layers=llm.num_hidden_layers,
        kv=kv_elements(config),
        sharing=llm.num_attention_heads // llm.num_key_value_heads,
        tiles=tiles,
        picture_tokens=tokens,
        positions=llm.max_position_embeddings,
        sam2_side=shape.mask_side,
        sam2_embed=shape.peak_width,
        sam2_model=shape.d_model,
    )


@dataclass(frozen=True)
class Workload:
    """What the engine is set to hold at once. `kv_tokens` are the cache's, 0 for as many as slots of whole contexts.
    `gathered` are the places of the cache that a prompt's attention copies at once, and `masked` the numbers of its
    mask; a reply's copies as many as the cache has twice over. 0 is none: a CPU reads the cache where it lies."""

    slots: int
    context: int
    max_prefill: int
    max_tiles: int
    max_images: int
    feature_cache_bytes: int
    prefix_cache_bytes: int = 0
    max_masks: int = 32
    kv_tokens: int = 0
    gathered: int = 0
    masked: int = 0

    @property
    def tokens(self) -> int:
        return self.kv_tokens or self.slots * self.context


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


def estimate(measures: Measures, weights: int, element: int, workload: Workload) -> MemoryEstimate:
    """What a model needs whose weights take so many bytes, and which computes in numbers of `element` bytes."""
    return MemoryEstimate(
        weights=weights,
        kv_cache=element * measures.kv * workload.tokens,
        features=workload.feature_cache_bytes + workload.prefix_cache_bytes,
        activations=int(element * MARGIN * max(activations(measures, workload).values())),
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


def loaded_bytes(model: nn.Module) -> int:
    """What a loaded model's parameters and buffers take."""
    tensors = {tensor.data_ptr(): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


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


def activations(measures: Measures, workload: Workload) -> dict[str, float]:
    """Numbers alive at the peak of each stage of the engine, at most; one stage runs at a time.

    `prompt` is at the end of a context: where attention gathers, it copies a layer's keys and values, and its mask for
    each of the query heads that share keys.
    """
    side, a_layer = measures.sam2_side, measures.kv // measures.layers
    mask = workload.max_prefill * workload.context
    if workload.gathered:
        mask = (1 + measures.sharing) * min(mask, max(workload.masked, workload.context))
    return {
        "tiles": TILES * workload.max_tiles * measures.tile,
        "sam2": workload.max_images * side * side * max(HIERA * measures.sam2_embed, NECK * measures.sam2_model),
        "masks": MASKS * workload.max_masks * side * side * measures.sam2_model,
        "prompt": PROMPT * workload.max_prefill * measures.intermediate
        + min(workload.gathered, workload.slots * workload.context) * a_layer
        + mask,
        "reply": 2 * workload.tokens * a_layer if workload.gathered else 0,
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


def memory_budget(devices: Sequence[torch.device], share: float) -> int:
    """Bytes that a model may take of all the devices together: of a GPU's memory 1 - `share` is left, as others may
    come to want it; of a CPU's a share of what is free, since others have theirs already."""
    return sum(_budget(device, share) for device in devices)


def _budget(device: torch.device, share: float) -> int:
    free = free_memory(device)
    if device.type == "cpu":
        return int(share * free)
    return max(0, free - int((1 - share) * device_memory(device)[1]))

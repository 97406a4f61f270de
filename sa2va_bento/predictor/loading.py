"""From settings to a model on its device: what fits where, fetched, read."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from sa2va_bento.engine.fit import Device, Fit, fit
from sa2va_bento.engine.limits import Limits
from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.adapters import Adapters
from sa2va_bento.model.base import Sa2VA
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.loading.adapter import Adapter
from sa2va_bento.model.loading.checkpoint import Placement, choose_placement, load_model
from sa2va_bento.model.loading.device_map import DeviceMap, place
from sa2va_bento.model.loading.hub import fetch_config, resolve, resolve_adapter
from sa2va_bento.model.loading.memory import (
    GIB,
    loaded_bytes,
    measures_of,
    memory_budget,
    unfilled,
    weight_bytes,
)
from sa2va_bento.model.loading.named_adapters import attach
from sa2va_bento.model.loading.quantization import Quantization
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.model.registry import read_config
from sa2va_bento.settings import Settings

logger = logging.getLogger(__name__)

LARGE = GIB
"""Bytes of weights in float32, from which on a model spends its time on products and not around them."""


@dataclass(frozen=True)
class Loaded:
    """A model on its device, its tokenizer and its adapters by name, and what the engine may hold beside them."""

    model: Sa2VA
    tokenizer: PromptTokenizer
    adapters: Adapters
    limits: Limits


def load(settings: Settings) -> Loaded:
    """The model that the settings name, on its device.

    Raises:
        CheckpointError: one line that names what is wrong.
    """
    placement = choose_placement(settings.device, settings.dtype)
    if settings.device == "auto" and settings.model_path and placement.device.type == "cpu":
        logger.warning("no GPU is visible (docker run --gpus all): %s runs on the CPU, slowly", settings.model_name)
    wanted = (settings.model_dir_or_id, settings.model_revision, settings.cache_dir)
    config = read_config(fetch_config(*wanted) / "config.json")
    is_large = weight_bytes(unfilled(config), torch.float32.itemsize, "none") > LARGE
    placement = for_processor(placement, settings.dtype, is_large)
    if threads := settings.threads or _cpu_threads(placement.device, is_large):
        torch.set_num_threads(threads)
    device = _device(placement, settings)
    if placement.dtype == torch.float32:  # asked for, where there is a GPU: then convolutions are not rounded either
        torch.backends.cudnn.allow_tf32 = False
    named = read_named_adapters(settings)
    estimated, parts = _shared(config, placement, settings, device, named)
    logger.info("estimated: %s", estimated.needed)
    adapter = read_adapter(settings)
    folder = resolve(*wanted)  # gigabytes, which a model that does not fit is spared
    tokenizer = PromptTokenizer.from_dir(folder)
    model = load_model(folder, placement, settings.quantization, parts, adapter)
    adapters = attach(model, folder, named, adapter)
    return Loaded(model, tokenizer, adapters, _measured(model, adapters.bytes, placement, settings, device))


def read_named_adapters(settings: Settings) -> dict[str, Adapter]:
    """The adapters beside the model, by their names, fetched first. Raises CheckpointError where one can't be had or
    read, or is called as the model is."""
    if taken := [name for name in settings.named_adapters if settings.is_model(name)]:
        raise CheckpointError(f"SA2VA_ADAPTERS: {taken[0]} is the model's own name")
    return {
        name: Adapter.read(resolve_adapter(source, settings.cache_dir, "SA2VA_ADAPTERS"))
        for name, source in settings.named_adapters.items()
    }


def read_adapter(settings: Settings) -> Adapter | None:
    """The adapter that the settings name, fetched first. Raises CheckpointError where it can't be had or read."""
    if settings.adapter is None:
        return None
    return Adapter.read(resolve_adapter(settings.adapter, settings.cache_dir))


def _device(placement: Placement, settings: Settings) -> Device:
    devices = (placement.device, *placement.others)
    gathers = placement.device.type != "cpu"
    name = ", ".join(str(device) for device in devices)
    return Device(memory_budget(devices, settings.memory_share), placement.dtype.itemsize, gathers, name)


def fit_on_devices(
    config: CheckpointConfig, placement: Placement, settings: Settings, adapters: Mapping[str, Adapter] | None = None
) -> Fit:
    """What fits, before anything is loaded. Raises CheckpointError where not one request does: with the numbers, and
    the setting that would make it fit; or where the devices can't share the model."""
    return _shared(config, placement, settings, _device(placement, settings), adapters or {})[0]


def _shared(
    config: CheckpointConfig, placement: Placement, settings: Settings, on: Device, adapters: Mapping[str, Adapter]
) -> tuple[Fit, DeviceMap | None]:
    """What fits, and where the parts go if there are several devices: what they have in pieces is a little less than
    what they have together."""
    model, beside = unfilled(config), on.element * sum(adapter.numbers for adapter in adapters.values())
    budgets = {d: memory_budget([d], settings.memory_share) for d in (placement.device, *placement.others)}
    refusal: CheckpointError | None = None
    for part in range(20, 10, -1):
        smaller = replace(on, budget=on.budget * part // 20)
        found = _fit(config, settings, lambda kind: weight_bytes(model, on.element, kind) + beside, smaller)
        if not placement.others:
            return found, None
        try:
            return found, place(config, found.needed, budgets, on.element, settings.quantization)
        except CheckpointError as error:
            refusal = refusal or error
    raise refusal or CheckpointError("the devices can't share the model")


def _fit(config: CheckpointConfig, settings: Settings, weights: Callable[[Quantization], int], on: Device) -> Fit:
    return fit(settings, lambda most: measures_of(config, most), weights, on)


def _measured(model: Sa2VA, beside: int, placement: Placement, settings: Settings, before: Device) -> Limits:
    """What fits beside the model now that it is there: its own bytes, and what the device has left, correct what was
    estimated; `beside` are the bytes of its adapters."""
    weights = loaded_bytes(model) + beside
    left = memory_budget((placement.device, *placement.others), settings.memory_share)
    found = _fit(model.config, settings, lambda _: weights, replace(before, budget=min(before.budget, left + weights)))
    limits = found.limits
    logger.info("loaded: %s", found.needed)
    logger.info(
        "%d requests at once, of %d tokens at most, %d tokens together", limits.slots, limits.context, limits.kv_tokens
    )
    return limits


def for_processor(placement: Placement, dtype: str, is_large: bool) -> Placement:
    """`auto` of a large model on a CPU is bfloat16 where the processor multiplies it: that is what the checkpoints are
    in, and it takes a third to a seventh of float32's time."""
    has_products = any(torch.cpu.get_capabilities().get(name) for name in ("amx_bf16", "avx512_bf16"))
    if dtype == "auto" and placement.device.type == "cpu" and is_large and has_products:
        return replace(placement, dtype=torch.bfloat16)
    return placement


def _cpu_threads(device: torch.device, is_large: bool) -> int | None:
    """Half of the processors for a small model on the CPU: the others serve HTTP and prepare pictures meanwhile, and
    threads that wait for each other cost it more than they bring. None leaves torch's choice, which is all of them."""
    return max(1, len(os.sched_getaffinity(0)) // 2) if device.type == "cpu" and not is_large else None

"""From settings to a model on its device: what fits where, fetched, read."""

import logging
import os

import torch

from sa2va_bento.engine.limits import limits_of
from sa2va_bento.engine.workload import workload_of
from sa2va_bento.model.base import Sa2VA
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.loading.checkpoint import Placement, choose_placement, load_model
from sa2va_bento.model.loading.device_map import DeviceMap, place
from sa2va_bento.model.loading.hub import fetch_config, resolve
from sa2va_bento.model.loading.memory import estimate
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.model.registry import read_config
from sa2va_bento.settings import Settings

logger = logging.getLogger(__name__)


def load(settings: Settings) -> tuple[Sa2VA, PromptTokenizer]:
    """The model that the settings name, on its device.

    Raises:
        CheckpointError: one line that names what is wrong.
    """
    placement = choose_placement(settings.device, settings.dtype)
    if settings.device == "auto" and settings.model_path and placement.device.type == "cpu":
        logger.warning("no GPU is visible (docker run --gpus all): %s runs on the CPU, slowly", settings.model_name)
    if threads := settings.threads or _cpu_threads(placement.device):
        torch.set_num_threads(threads)
    wanted = (settings.model_dir_or_id, settings.model_revision, settings.cache_dir)
    parts = _fit(read_config(fetch_config(*wanted) / "config.json"), placement, settings)
    folder = resolve(*wanted)  # gigabytes, which a model that does not fit is spared
    tokenizer = PromptTokenizer.from_dir(folder)
    return load_model(folder, placement, settings.quantization, parts), tokenizer


def _fit(config: CheckpointConfig, placement: Placement, settings: Settings) -> DeviceMap | None:
    """Where the parts of a model go. Raises CheckpointError, with the numbers, where there is no room for it."""
    element, quantization = placement.dtype.itemsize, settings.quantization
    needed = estimate(config, element, workload_of(settings, limits_of(settings, config)), quantization)
    return place(config, needed, (placement.device, *placement.others), element, quantization)


def _cpu_threads(device: torch.device) -> int | None:
    """Half of the processors for a model on the CPU: the others serve HTTP and prepare pictures meanwhile, and threads
    that wait for each other cost a small model more than they bring. None leaves torch's choice."""
    return max(1, len(os.sched_getaffinity(0)) // 2) if device.type == "cpu" else None

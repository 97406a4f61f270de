"""Several workers on one machine: how many there are, and which GPU, or which share of the processors, each has."""

import os
import sys

from _bentoml_impl.server.allocator import (  # pyright: ignore[reportMissingTypeStubs]
    DISABLE_GPU_ALLOCATION_ENV,
    NVIDIA_GPU,
)
from bentoml._internal.context import server_context
from bentoml._internal.resource import system_resources

from sa2va_bento.settings import Settings
from sa2va_bento.web import startup


def worker_count(settings: Settings) -> int:
    """How many processes answer. Raises SystemExit, with one line, where these settings exclude each other."""
    count = max(1, _gpus()) if settings.workers == "auto" else settings.workers
    if count > 1 and settings.device == "all":
        sys.exit("sa2va: SA2VA_WORKERS gives each GPU a model of its own, SA2VA_DEVICE=all spreads one over them")
    return count


def for_this_worker(settings: Settings) -> Settings:
    """The settings of one of several workers: the n-th takes the n-th GPU, or its share of the processors."""
    count, index = worker_count(settings), server_context.worker_index
    if count == 1 or index is None:
        return settings
    if settings.device in ("auto", "cuda") and (_gpus() or settings.device == "cuda"):
        return settings.model_copy(update={"device": f"cuda:{index - 1}"})
    share = max(1, len(os.sched_getaffinity(0)) // 2 // count)
    return settings.model_copy(update={"threads": settings.threads or share})


def _gpus() -> int:
    """GPUs that a worker sees, told without CUDA: who has asked that can't give them to a child."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([device for device in visible.split(",") if device.strip()])
    return len(system_resources()[NVIDIA_GPU])


def share_gpus(workers: int) -> None:
    """In the supervisor, before it makes its workers: they see every GPU, of which BentoML would show all of them the
    first only; and where there are several, one that dies is replaced in a container too, since the others go on."""
    if startup.is_worker():
        return
    os.environ.setdefault(DISABLE_GPU_ALLOCATION_ENV, "1")
    if workers > 1:
        os.environ.pop("BENTOML_CONTAINERIZED", None)

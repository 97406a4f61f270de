"""What the settings ask of the engine, for a given checkpoint."""

from sa2va_bento.engine.runner import MASKS_TOGETHER
from sa2va_bento.engine.scheduler import Limits
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.memory import Workload
from sa2va_bento.settings import Settings


def limits_of(settings: Settings, config: CheckpointConfig) -> Limits:
    """The engine's limits; a context longer than the model's own is cut to it."""
    context = min(settings.context, config.llm.max_position_embeddings)
    return Limits(slots=settings.slots, context=context, max_prefill=settings.max_prefill)


def workload_of(settings: Settings, limits: Limits) -> Workload:
    """What the engine may hold at once."""
    return Workload(
        slots=limits.slots,
        context=limits.context,
        max_prefill=limits.max_prefill,
        max_tiles=limits.max_tiles,
        max_images=limits.max_images,
        feature_cache_bytes=settings.feature_cache_bytes,
        prefix_cache_bytes=settings.prefix_cache_bytes,
        max_masks=MASKS_TOGETHER,
    )

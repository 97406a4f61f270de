"""What the engine may hold at once, for the estimate of its memory."""

from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.runner import MASKS_TOGETHER
from sa2va_bento.model.loading.memory import Workload
from sa2va_bento.settings import Settings


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

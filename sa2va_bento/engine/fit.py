"""The memory of a device shared out: what the engine may hold at once, of a model whose needs are known.

First the weights; then one request as large as the model's pictures can be, or nothing works; then the working memory
of large batches, what is kept of pictures, and all the rest is KV cache: tokens, of however many requests.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.ragged import GATHERED, MASKED
from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.loading.memory import GIB, Measures, MemoryEstimate, Workload, estimate
from sa2va_bento.model.loading.quantization import Quantization
from sa2va_bento.settings import Settings

TEXT_TOKENS = 512
"""Of a question and its answer, beside the picture: what the smallest context has room for."""
TYPICAL_TOKENS = 1024
"""Of a request, where slots are as many as memory serves."""
MOST_SLOTS, SLOTS_ON_CPU = 64, 16
CACHE_SHARE = 0.1
"""Of what is left after one request: what each of the two caches of pictures may take."""
MOST_CACHED, MOST_CACHED_ON_CPU = 2 * GIB, GIB // 2
WORK_SHARE = 0.3
"""Of what is left after the weights: what the working memory of large batches may take."""
BATCHES = ((16, 8, 32, 4096), (16, 4, 16, 2048), (1, 2, 8, 1024), (1, 1, 4, 1024))
"""Tiles and SAM2's pictures that are encoded together, masks that are decoded, and a GPU's prompt tokens that are read:
the first that are little enough."""
PREFILL_ON_CPU = 1024
ROUND = 128
"""Tokens of the cache, which are a multiple of this."""


@dataclass(frozen=True)
class Device:
    """Where a model is to run: bytes that it may take, of a number, and whether attention copies what it reads."""

    budget: int
    element: int
    gathers: bool
    name: str = "the device"


@dataclass(frozen=True)
class Fit:
    """The engine's limits on a device, and what they take of it."""

    limits: Limits
    needed: MemoryEstimate


def fit(
    settings: Settings, measures: Callable[[int | None], Measures], weights: Callable[[Quantization], int], on: Device
) -> Fit:
    """What fits. `measures` are the model's for a limit on tiles, `weights` its bytes for a quantization.

    Raises:
        CheckpointError: not even one request fits; with the numbers, and the setting that would make it fit.
    """
    found = _largest(settings, measures(settings.max_tiles), weights(settings.quantization), on)
    if found is None:
        raise CheckpointError(_refusal(settings, measures, weights, on))
    return found


def smallest(settings: Settings, measures: Measures, weights: int, on: Device) -> Fit:
    """One request as large as the model's pictures can be, alone."""
    context, (tiles, images, masks, _) = _least_context(settings, measures), BATCHES[-1]
    limits = replace(_limits(settings, measures.positions, 1), slots=1, context=context, kv_tokens=context)
    limits = replace(limits, max_tiles=max(tiles, measures.tiles), max_images=images, max_masks=masks)
    limits = _with_caches(limits, settings, 0, on)
    return Fit(limits, _needed(limits, measures, weights, on))


def _largest(settings: Settings, measures: Measures, weights: int, on: Device) -> Fit | None:
    alone = smallest(settings, measures, weights, on)
    left = on.budget - alone.needed.total
    if left < 0:
        return None
    limits = _limits(settings, measures.positions, MOST_SLOTS if on.gathers else SLOTS_ON_CPU)
    limits = _with_caches(limits, settings, int(CACHE_SHARE * left), on)
    limits = _with_batches(limits, settings, measures, weights, on)
    tokens = _most_tokens(limits, measures, weights, on)
    if tokens < alone.limits.context:
        return alone
    limits = replace(limits, context=min(limits.context, tokens), kv_tokens=tokens)
    limits = replace(limits, slots=_slots(settings, limits, on))
    limits = replace(limits, kv_tokens=min(tokens, limits.slots * limits.context))
    return Fit(limits, _needed(limits, measures, weights, on))


def _limits(settings: Settings, positions: int, slots: int) -> Limits:
    """As the settings want them, where memory is no matter; `slots` is the most of them that `auto` gives."""
    context, many = min(settings.wanted_context, positions), slots if settings.slots == "auto" else settings.slots
    return Limits(
        slots=many,
        context=context,
        kv_tokens=many * context if settings.kv_tokens == "auto" else max(context, settings.kv_tokens),
        max_prefill=PREFILL_ON_CPU if settings.max_prefill == "auto" else settings.max_prefill,
        clip_share=settings.clip_share,
    )


def _least_context(settings: Settings, measures: Measures) -> int:
    """One picture, its question and the answer; less where the settings want no more."""
    return min(settings.wanted_context, measures.positions, measures.picture_tokens + TEXT_TOKENS)


def _with_caches(limits: Limits, settings: Settings, auto: int, on: Device) -> Limits:
    most = min(auto, MOST_CACHED if on.gathers else MOST_CACHED_ON_CPU)
    features, prefixes = (
        most if size == "auto" else int(size * 2**20) for size in (settings.feature_cache_mb, settings.prefix_cache_mb)
    )
    return replace(limits, feature_cache_bytes=features, prefix_cache_bytes=prefixes)


def _with_batches(limits: Limits, settings: Settings, measures: Measures, weights: int, on: Device) -> Limits:
    """The largest batches of pictures whose working memory is little enough."""
    least = _least_context(settings, measures)
    for tiles, images, masks, prefill in BATCHES:
        limits = replace(limits, max_tiles=max(tiles, measures.tiles), max_images=images, max_masks=masks)
        if settings.max_prefill == "auto" and on.gathers:
            limits = replace(limits, max_prefill=prefill)
        one = _needed(replace(limits, slots=1, kv_tokens=least, context=least), measures, weights, on)
        if one.total <= on.budget and one.activations <= WORK_SHARE * (on.budget - weights):
            break
    return limits


def _most_tokens(limits: Limits, measures: Measures, weights: int, on: Device) -> int:
    """As many tokens as are wanted, or as fit."""

    def fits(rounds: int) -> bool:
        tokens = rounds * ROUND
        some = replace(limits, kv_tokens=tokens, context=min(limits.context, tokens))
        return _needed(some, measures, weights, on).total <= on.budget

    if fits(-(-limits.kv_tokens // ROUND)):
        return limits.kv_tokens
    low, high = 0, limits.kv_tokens // ROUND
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return max(low * ROUND, ROUND)


def _slots(settings: Settings, limits: Limits, on: Device) -> int:
    if settings.slots != "auto":
        return settings.slots
    most = MOST_SLOTS if on.gathers else SLOTS_ON_CPU
    return max(1, min(most, limits.kv_tokens // min(TYPICAL_TOKENS, limits.context)))


def _needed(limits: Limits, measures: Measures, weights: int, on: Device) -> MemoryEstimate:
    return estimate(measures, weights, on.element, workload_of(limits, on.gathers))


def workload_of(limits: Limits, gathers: bool) -> Workload:
    """What the engine may hold at once, for the estimate of its memory."""
    return Workload(
        slots=limits.slots,
        context=limits.context,
        max_prefill=limits.max_prefill,
        max_tiles=limits.max_tiles,
        max_images=limits.max_images,
        feature_cache_bytes=limits.feature_cache_bytes,
        prefix_cache_bytes=limits.prefix_cache_bytes,
        max_masks=limits.max_masks,
        kv_tokens=limits.kv_tokens,
        gathered=GATHERED if gathers else 0,
        masked=MASKED if gathers else 0,
    )


def _refusal(
    settings: Settings, measures: Callable[[int | None], Measures], weights: Callable[[Quantization], int], on: Device
) -> str:
    needed = smallest(settings, measures(settings.max_tiles), weights(settings.quantization), on).needed
    missing = needed.total - on.budget
    return (
        f"one request alone needs {needed}, of {on.name} {on.budget / GIB:.2f} GiB can be had: "
        f"{missing / GIB:.2f} GiB too little; {_remedy(settings, measures, weights, on)}"
    )


def _remedy(
    settings: Settings, measures: Callable[[int | None], Measures], weights: Callable[[Quantization], int], on: Device
) -> str:
    """The first setting, or pair of settings, with which one request fits."""
    most = measures(settings.max_tiles).tiles
    caches = {"feature_cache_mb": "auto", "prefix_cache_mb": "auto"}
    kinds: tuple[Quantization, ...] = ("int8", "int4")
    changes = [
        caches,
        *({"max_tiles": tiles} for tiles in (most // 2, 1) if 1 <= tiles < most),
        *({"quantization": kind} for kind in kinds),
        *({**caches, "max_tiles": 1, "quantization": kind} for kind in kinds),
    ]
    for change in changes:
        changed = settings.model_copy(update=change)
        limit = measures(changed.max_tiles)
        if smallest(changed, limit, weights(changed.quantization), on).needed.total <= on.budget:
            named = [f"SA2VA_{name.upper()}={value}" for name, value in change.items()]
            return f"{' and '.join(named)} would make it fit"
    return "no setting makes it fit"

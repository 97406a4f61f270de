"""Keeps the gauges of the engine while it runs."""

import time
from typing import Protocol

from sa2va_bento import metrics
from sa2va_bento.engine.engine import Observer
from sa2va_bento.types import EngineStats, Stage


class Watched(Protocol):
    """What is looked at: a predictor."""

    def note_running(self, running: int) -> None: ...

    def stats(self) -> EngineStats: ...

    def device_memory(self) -> tuple[int, int]: ...


class MetricsObserver(Observer):
    """Sets the gauges after each step; those of caches and memory once an interval."""

    INTERVAL_S = 1.0
    """Between two looks at caches and memory."""

    def __init__(self, predictor: Watched) -> None:
        self._predictor, self._caches = predictor, metrics.CacheCounters()
        self._looked_at = 0.0

    def on_batch(self, stage: Stage, size: int) -> None:
        metrics.batch_size.labels(stage).observe(size)

    def on_step(self, running: int, waiting: int) -> None:
        self._predictor.note_running(running)
        if running and time.monotonic() - self._looked_at < self.INTERVAL_S:
            return
        self._looked_at = time.monotonic()
        stats, (used, total) = self._predictor.stats(), self._predictor.device_memory()
        self._caches.update(stats)
        metrics.kv_cache_usage_ratio.set(stats.kv_tokens / stats.kv_capacity)
        metrics.device_memory_used.set(used)
        metrics.device_memory_total.set(total)

"""Every Prometheus series of the project, in one place.

Names follow Prometheus' conventions; `requests_running`, `requests_waiting` and `kv_cache_usage_ratio` are what
autoscalers read (KEDA, and the Gateway API's model server protocol). Under BentoML the values of all worker processes
are files in a folder of the service's own (`web/startup.py`), which prometheus-client adds up.
"""

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import generate_latest as _generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import ValueClass

from sa2va_bento.types import EngineStats, Stage

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

CONTENT_TYPE = CONTENT_TYPE_LATEST

requests_running = Gauge("sa2va_requests_running", "Requests that the model works on.", multiprocess_mode="livesum")
requests_waiting = Gauge(
    "sa2va_requests_waiting", "Accepted requests that the model does not work on yet.", multiprocess_mode="livesum"
)
requests_total = Counter("sa2va_requests_total", "Requests that were answered by the model.")
requests_rejected = Counter("sa2va_requests_rejected_total", "Requests that were refused.", ["reason"])
requests_cancelled = Counter("sa2va_requests_cancelled_total", "Requests whose client went away.", ["reason"])
requests_failed = Counter("sa2va_requests_failed_total", "Accepted requests that got no answer.", ["reason"])
kv_cache_usage_ratio = Gauge(
    "sa2va_kv_cache_usage_ratio", "Share of the KV cache's tokens that are in use.", multiprocess_mode="livemax"
)
prompt_tokens = Counter("sa2va_prompt_tokens_total", "Tokens of prompts, pictures included.")
generation_tokens = Counter("sa2va_generation_tokens_total", "Tokens of replies.")
segments = Counter("sa2va_segments_total", "Masks that were answered.")
time_to_first_token = Histogram(
    "sa2va_time_to_first_token_seconds", "From a request's arrival to the first token of its reply.", buckets=SECONDS
)
time_per_output_token = Histogram(
    "sa2va_time_per_output_token_seconds",
    "Between two tokens of a reply, averaged over it.",
    buckets=TOKEN_SECONDS,
)
stage_seconds = Histogram("sa2va_stage_seconds", "Time of a request in a stage.", ["stage"], buckets=SECONDS)
batch_size = Histogram("sa2va_batch_size", "Requests computed together in a stage.", ["stage"], buckets=SIZES)
cache_hits = Counter("sa2va_cache_hits_total", "Look-ups in a cache that found something.", ["cache"])
cache_misses = Counter("sa2va_cache_misses_total", "Look-ups in a cache that found nothing.", ["cache"])
cache_bytes = Gauge("sa2va_cache_bytes", "Size of a cache.", ["cache"], multiprocess_mode="livesum")
device_memory_used = Gauge(
    "sa2va_device_memory_used_bytes", "Memory of the model's device in use.", multiprocess_mode="livemax"
)
device_memory_total = Gauge(
    "sa2va_device_memory_total_bytes", "Memory of the model's device.", multiprocess_mode="livemax"
)
http_requests = Counter(
    "sa2va_http_requests_total", "HTTP requests by the route that they matched.", ["method", "route", "status"]
)
http_seconds = Histogram("sa2va_http_request_seconds", "Time to answer an HTTP request.", ["route"], buckets=SECONDS)

for _stage in Stage:  # series exist before the first request: rates and alerts need their zeros
    stage_seconds.labels(_stage)
requests_rejected.labels("overloaded")
requests_cancelled.labels("client_gone")
for _reason in ("internal", "deadline", "device_lost"):
    requests_failed.labels(_reason)


class CacheCounters:
    """Turns the totals that caches keep into counters."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}

    def update(self, stats: EngineStats) -> None:
        """Adds what has come since the last time."""
        for name, cache in stats.caches.items():
            hits, misses = self._known.get(name, (0, 0))
            cache_hits.labels(name).inc(cache.hits - hits)
            cache_misses.labels(name).inc(cache.misses - misses)
            cache_bytes.labels(name).set(cache.bytes)
            self._known[name] = (cache.hits, cache.misses)


def count_error(status: int, reason: str) -> None:
    """Counts a request that was not answered: refused (4xx and overload), left by its client, or failed."""
    if status == 499:
        requests_cancelled.labels(reason).inc()
    elif status in (500, 504) or reason == "device_lost":
        requests_failed.labels(reason).inc()
    else:
        requests_rejected.labels(reason).inc()


def exposition() -> bytes:
    """All series of all processes in Prometheus' text format."""
    if ValueClass.__name__ == "MutexValue":  # one process
        return _generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return _generate_latest(registry)

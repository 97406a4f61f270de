"""Spans of a request's stages: children of the span that BentoML makes of each HTTP request, and sent where its own
configuration says (`services.sa2va.tracing`)."""

import time

from bentoml._internal.configuration.containers import BentoMLContainer
from opentelemetry import trace

from sa2va_bento import __version__
from sa2va_bento.types import RequestContext

NAME = "sa2va_bento"
FLUSH_MS = 2000
"""Most milliseconds that the last spans may take on their way."""


def trace_request(request_id: str) -> None:
    """Called at the beginning of a request: its span bears its id."""
    trace.get_current_span().set_attribute("sa2va.request_id", request_id)


def trace_stages(context: RequestContext) -> None:
    """Called at the end of a request, in its own task. Each stage is one span, from its first moment to its last; where
    it took turns with others, its `sa2va.seconds` are fewer than its length."""
    if not trace.get_current_span().get_span_context().trace_flags.sampled:  # or tracing is off
        return
    tracer = BentoMLContainer.tracer_provider.get().get_tracer(NAME, __version__)
    since_epoch = time.time() - time.monotonic()
    seconds = context.seconds
    for stage, (begun, ended) in context.moments.items():
        span = tracer.start_span(f"sa2va.{stage}", start_time=_nanoseconds(since_epoch + begun))
        span.set_attribute("sa2va.seconds", seconds[stage])
        span.end(_nanoseconds(since_epoch + ended))


def flush() -> None:
    """Sends what has not been sent yet: at the end of a process it would be lost."""
    BentoMLContainer.tracer_provider.get().force_flush(FLUSH_MS)


def _nanoseconds(seconds: float) -> int:
    return int(1e9 * seconds)

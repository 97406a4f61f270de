"""The log as JSON: one object a line, for whoever collects logs.

What is logged, and by whom, stays as it is; only its form differs. Pictures, prompts and replies are in neither form.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Literal

from opentelemetry import trace

REQUEST = "request %s"
"""How a message begins that is about a request, whose id is its first argument."""
LOGGERS = ("", "bentoml", "uvicorn.error", "circus")
"""Those to which BentoML gives handlers; the package's own lines come to the root's."""


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger`, `message`; where there are, `request_id`, `trace_id`, `exception`, and the fields that
    the record brings along as `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        written: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if isinstance(record.msg, str) and record.msg.startswith(REQUEST) and isinstance(record.args, tuple):
            written["request_id"] = record.args[0]
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            written["trace_id"] = trace.format_trace_id(span.trace_id)
        written |= getattr(record, "fields", {})
        if record.exc_info:
            written["exception"] = self.formatException(record.exc_info)
        return json.dumps(written, default=str)


def use(form: Literal["text", "json"]) -> None:
    """Sets the form of this process's log."""
    if form == "json":
        for name in LOGGERS:
            for handler in logging.getLogger(name).handlers:
                handler.setFormatter(JsonFormatter())

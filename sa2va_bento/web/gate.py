"""The gate: what can't be served now is refused before any layer of the application has seen it, at next to no cost.

Under ten times the load that the model can take, nine of ten requests end here; each of them through BentoML's layers
would take the time that the answers need.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from sa2va_bento import metrics
from sa2va_bento.errors import Sa2VAError
from sa2va_bento.settings import Settings
from sa2va_bento.web.endpoints import ENDPOINTS
from sa2va_bento.web.errors import error_response
from sa2va_bento.web.openai.errors import PREFIX
from sa2va_bento.web.runtime import Runtime

GUARDED = frozenset(endpoint.path for endpoint in ENDPOINTS if endpoint.method == "POST" and endpoint.takes)
"""The paths that ask the model."""

MOST_PATH = 64
_GUARDED_BYTES = frozenset(path.encode() for path in GUARDED if not path.startswith(PREFIX))
_PARTICULAR = re.compile(rb"\r\n(origin|expect):", re.IGNORECASE)
"""Headers that want more of an answer than a plain one."""
_REQUEST_ID = re.compile(rb"\r\nx-request-id: *([A-Za-z0-9._-]{1,128})(?:\r\n|$)", re.IGNORECASE)

Layers = Iterator[tuple[type, dict[str, Any]]]


class Gate:
    """Tells for a request whether it is refused at once, and by which application."""

    def __init__(self, runtime: Runtime, layers: Callable[[Settings], Layers]) -> None:
        self._runtime = runtime
        self._refuser: ASGIApp = self._refuse
        for layer, options in reversed(list(layers(runtime.settings))):
            self._refuser = layer(self._refuser, **options)

    def __call__(self, scope: Scope) -> ASGIApp | None:
        if scope["method"] != "POST" or scope["path"].rstrip("/") not in GUARDED:
            return None
        if refusal := self._refusal():
            scope["state"]["refusal"] = refusal
            return self._refuser
        return None

    def at_once(self, data: bytes) -> bytes | None:
        """The whole answer to a request whose head begins a connection, where that is a plain refusal: a tenth of what
        it costs to have the head parsed and the answer written by layers."""
        end, words = data.find(b"\r\n\r\n"), data[:MOST_PATH].split(b" ", 2)
        if end < 0 or words[0] != b"POST" or words[1] not in _GUARDED_BYTES:
            return None
        head = data[:end]
        if _PARTICULAR.search(head) or (refusal := self._refusal()) is None:
            return None
        given = _REQUEST_ID.search(head)
        return _plain_refusal(refusal, given[1].decode() if given else uuid.uuid4().hex)

    def _refusal(self) -> Sa2VAError | None:
        try:
            self._runtime.model.check_room(self._runtime.settings.timeout_s)
        except Sa2VAError as error:
            return error
        return None

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await error_response(scope["state"]["refusal"], scope)(scope, receive, send)


def _plain_refusal(error: Sa2VAError, request_id: str) -> bytes:
    metrics.count_error(error.status, error.reason)
    metrics.http_requests.labels("POST", "refused at once", error.status).inc()
    body = json.dumps({"error": error.message, "request_id": request_id}).encode()
    return (
        b"HTTP/1.1 %d Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: %d\r\n"
        b"X-Request-ID: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
    ) % (error.status, error.retry_after_s or 1, request_id.encode(), len(body), body)

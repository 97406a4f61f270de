"""The gate: what can't be served now is refused before any layer of the application has seen it, at next to no cost.

Under ten times the load that the model can take, nine of ten requests end here; each of them through BentoML's layers
would take the time that the answers need.
"""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from sa2va_bento import metrics
from sa2va_bento.errors import Sa2VAError
from sa2va_bento.settings import Settings
from sa2va_bento.web.coming import STATE, Coming
from sa2va_bento.web.endpoints import ENDPOINTS
from sa2va_bento.web.errors import error_response
from sa2va_bento.web.openai.errors import PREFIX
from sa2va_bento.web.runtime import Runtime

GUARDED = frozenset(endpoint.path for endpoint in ENDPOINTS if endpoint.method == "POST" and endpoint.takes)
"""The paths that ask the model."""

MOST_PATH = 64
_GUARDED_BYTES = frozenset(path.encode() for path in GUARDED if not path.startswith(PREFIX))
_END = b"\r\n\r\n"
_PARTICULAR = re.compile(rb"\r\n(origin|expect):", re.IGNORECASE)
"""Headers that want more of an answer than a plain one."""
_REQUEST_ID = re.compile(rb"\r\nx-request-id: *([A-Za-z0-9._-]{1,128})\r\n", re.IGNORECASE)

Layers = Iterator[tuple[type, dict[str, Any]]]


class Gate:
    """Tells for a request whether it is refused at once, and by which application.

    Who is let in takes a place only once the body has been read. So those whose bodies are coming count beside those
    that wait: else, whenever one place is free, all that come until it is taken would be read, and refused after all.
    But of those that have sent little more than a head, no more count than do wait: by announcing many, nobody shuts
    others out.
    """

    def __init__(self, runtime: Runtime, layers: Callable[[Settings], Layers]) -> None:
        self._runtime = runtime
        self._coming: list[Coming] = []
        self._refuser: ASGIApp = self._refuse
        for layer, options in reversed(list(layers(runtime.settings))):
            self._refuser = layer(self._refuser, **options)

    def __call__(self, scope: Scope) -> ASGIApp | None:
        if scope["method"] != "POST" or scope["path"].rstrip("/") not in GUARDED or STATE in scope["state"]:
            return None
        if refusal := self._refusal():
            scope["state"]["refusal"] = refusal
            return self._refuser
        scope["state"][STATE] = self._expected()
        return None

    @property
    def is_closed(self) -> bool:
        """Whether everybody who asks the model is refused."""
        return self._refusal() is not None

    def at_once(self, data: bytes) -> bytes | None:
        """The whole answer to a request whose head begins a connection, where that is a plain refusal: a tenth of what
        it costs to have the head parsed and the answer written by layers."""
        if not _asks_model(data) or (refusal := self._refusal()) is None:
            return None
        head = data[: data.find(_END) + 2]
        given = _REQUEST_ID.search(head) if b"-id:" in head.lower() else None
        return _plain_refusal(refusal, given[1].decode() if given else uuid.uuid4().hex)

    def expect(self, data: bytes) -> Coming | None:
        """Notes that the body of a request comes whose head is this, if it asks the model and was not refused."""
        return self._expected() if _asks_model(data) else None

    def _expected(self) -> Coming:
        coming = Coming()
        self._coming = [other for other in self._coming if not other.is_done]
        self._coming.append(coming)
        return coming

    def _refusal(self) -> Sa2VAError | None:
        try:
            model = self._runtime.model
            model.check_room(self._runtime.settings.timeout_s, self._count_coming(model.queue_depth))
        except Sa2VAError as error:
            return error
        return None

    def _count_coming(self, waiting: int) -> int:
        """Bodies that count as much as who waits already."""
        if not self._coming:
            return 0
        now = time.monotonic()
        brisk = [coming for coming in self._coming if coming.is_brisk(now)]
        sure = sum(coming.is_sure for coming in brisk)
        return sure + min(len(brisk) - sure, waiting)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await error_response(scope["state"]["refusal"], scope)(scope, receive, send)


def _asks_model(data: bytes) -> bool:
    """Whether these first bytes hold the head of a plain question."""
    words = data[:MOST_PATH].split(b" ", 2)
    if words[0] != b"POST" or len(words) < 3 or words[1] not in _GUARDED_BYTES:
        return False
    end = data.find(_END)
    return end >= 0 and not _PARTICULAR.search(data, 0, end)


def _plain_refusal(error: Sa2VAError, request_id: str) -> bytes:
    metrics.count_error(error.status, error.reason)
    metrics.http_requests.labels("POST", "refused at once", error.status).inc()
    body = json.dumps({"error": error.message, "request_id": request_id}).encode()
    return (
        b"HTTP/1.1 %d Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: %d\r\n"
        b"X-Request-ID: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
    ) % (error.status, error.retry_after_s or 1, request_id.encode(), len(body), body)

"""ASGI layers around every route, outermost first: timers, CORS, encodings, arrival, errors, keys, body."""

import logging
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sa2va_bento import metrics
from sa2va_bento.errors import PayloadTooLargeError, Sa2VAError, UnsupportedMediaError
from sa2va_bento.settings import Settings
from sa2va_bento.types import RequestContext
from sa2va_bento.web.access import Access
from sa2va_bento.web.content_encoding import Compression, Decompression
from sa2va_bento.web.endpoints import OTHER, QUIET, UPLOAD_PATH, is_open, route_of
from sa2va_bento.web.errors import contract_error, error_response
from sa2va_bento.web.memory_budget import MemoryBudget
from sa2va_bento.web.priority import Priority
from sa2va_bento.web.statuses import status_of
from sa2va_bento.web.tracing import trace_request, trace_stages

access_log = logging.getLogger("sa2va_bento.access")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REQUEST_ID = "X-Request-ID"
MOST_DIGITS = 18
"""Of a body's length: Python refuses to read thousands of them."""
PICKLE = "application/vnd.bentoml+pickle"
_CLEAN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def middlewares(settings: Settings) -> Iterator[tuple[type, dict[str, Any]]]:
    """Classes and their options, outermost first."""
    cors, arrival = outer_middlewares(settings)
    yield UploadTimer, {}
    yield cors
    yield Compression, {}
    yield arrival
    yield ErrorShape, {}
    yield (
        Access,
        {
            "keys": settings.keys,
            "per_minute": settings.rate_limit,
            "is_open": is_open,
            "proxies": settings.proxy_networks,
        },
    )
    if settings.low_priority or settings.priority_header:
        yield Priority, {"keys": settings.low_priority, "believes_header": settings.priority_header}
    budget = MemoryBudget(int(settings.max_queue_mb * 2**20))
    yield BodyLimit, {"limit": settings.max_body_bytes, "upload_limit": settings.max_video_bytes, "budget": budget}
    yield Decompression, {"limit": settings.max_body_bytes, "budget": budget}


def outer_middlewares(settings: Settings) -> Iterator[tuple[type, dict[str, Any]]]:
    """Those that every answer passes, a refusal at the gate too."""
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    exposed = [REQUEST_ID, "Retry-After"]
    yield (
        CORSMiddleware,
        {
            "allow_origins": origins,
            "allow_methods": ["*"],
            "allow_headers": ["*"],
            "expose_headers": exposed,
        },
    )
    yield Arrival, {"timeout_s": settings.timeout_s}


class UploadTimer:
    """Stops BentoML's timer, which runs until a request's first message, where a video is uploaded: that takes as long
    as it takes, at the pace that connections must keep. The message is none that a server knows; it says so, and that
    is all."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and without_slash(scope["path"]) == UPLOAD_PATH:
            with suppress(RuntimeError):
                await send({"type": "sa2va.upload"})
        await self.app(scope, receive, send)


class Arrival:
    """Notes what stays with a request until its answer: its id (the client's, if it is clean), its deadline and its
    clock. Answers with the id; logs and counts the answer, by the route that it matched."""

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        self.app, self._timeout_s = app, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        scope["path"] = without_slash(scope["path"])
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _CLEAN_ID.fullmatch(given) else uuid.uuid4().hex
        context = RequestContext(request_id, self._timeout_s)
        scope.setdefault("state", {})["context"] = context
        trace_request(request_id)
        status = 499  # unless an answer begins

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            _note(scope, status, context)
            trace_stages(context)


def without_slash(path: str) -> str:
    """A path that ends with a slash means the one without: a redirect would lose the prefix that a proxy took off."""
    return path.rstrip("/") or "/"


def _note(scope: Scope, status: int, context: RequestContext) -> None:
    """One line of the log, and the HTTP metrics. Paths come from strangers: they are escaped, and no labels."""
    route, seconds = route_of(scope), time.monotonic() - context.arrived
    method = scope["method"] if scope["method"] in METHODS else OTHER
    metrics.http_requests.labels(method, route, status).inc()
    metrics.http_seconds.labels(route).observe(seconds)
    if route not in QUIET:
        path, milliseconds = _printable(scope["path"]), 1e3 * seconds
        line = (context.request_id, scope["method"], path, status, milliseconds)
        fields = {"method": scope["method"], "path": path, "status": status, "duration_ms": round(milliseconds, 1)}
        access_log.info("request %s: %s %s answered %d in %.1f ms", *line, extra={"fields": fields})


def _printable(path: str) -> str:
    return path[:200].encode("unicode_escape").decode("ascii")


class ErrorShape:
    """Rewrites error responses of the layers below (404 of the router, the framework's own) to the contract's."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        shaper = _Shaper(scope, send)
        try:
            await self.app(scope, receive, shaper)
        except Exception as error:
            if shaper.started:
                raise
            await error_response(error, scope)(scope, receive, send)


class _Shaper:
    """A `send` that holds an error response back until its body is complete."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._held: Message | None = None
        self._body = b""
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._held = message
        elif self._held is None:
            self.started = True
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._release(self._held)

    async def _release(self, start: Message) -> None:
        status = start["status"]
        body = contract_error(status, self._body, self._scope)
        headers = MutableHeaders(scope=start)
        headers["content-type"] = "application/json"
        headers["content-length"] = str(len(body))
        if retry_after_s := status_of(status).retry_after_s:
            headers.setdefault("retry-after", str(retry_after_s))
        self.started = True
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


class BodyLimit:
    """Refuses bodies over `limit` bytes: by their announced length at once, else while they stream in. All bodies
    together have a budget; not so uploads, which go to the disk as they come and have a limit of their own.

    BentoML's pickled bodies are refused here too; it would do so itself, but with a traceback in the log.
    """

    def __init__(self, app: ASGIApp, limit: int, upload_limit: int, budget: MemoryBudget) -> None:
        self.app, self._limit, self._upload_limit, self._budget = app, limit, upload_limit, budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        is_upload = _is_upload(scope)
        if refusal := self._refusal(Headers(scope=scope), self._upload_limit if is_upload else self._limit):
            return await error_response(refusal, scope)(scope, receive, send)
        if is_upload:  # counted while it is written
            return await self.app(scope, receive, send)
        with self._budget.share() as share:

            async def receive_counted() -> Message:
                message = await receive()
                share.take(len(message.get("body", b"")))
                if share.taken > self._limit:
                    raise _too_large(self._limit)
                return message

            await self.app(scope, receive_counted, send)

    def _refusal(self, headers: Headers, limit: int) -> Sa2VAError | None:
        length = headers.get("content-length", "")
        if length.isdecimal() and (len(length) > MOST_DIGITS or int(length) > limit):
            return _too_large(limit)
        if headers.get("content-type", "").startswith(PICKLE):
            return UnsupportedMediaError("pickled bodies are never read")
        return None


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"the body is over the limit of {limit / 2**20:g} MiB")


def _is_upload(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    is_form = headers.get("content-type", "").startswith("multipart/form-data")
    return scope["path"] == UPLOAD_PATH and is_form and not headers.get("content-encoding")

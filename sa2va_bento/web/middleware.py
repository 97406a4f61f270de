"""ASGI layers around every route, outermost first: CORS, encodings, request id, errors, keys, admission, body."""

import asyncio
import re
import uuid
from collections.abc import Iterator
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sa2va_bento.errors import OverloadedError, PayloadTooLargeError, Sa2VAError, UnsupportedMediaError
from sa2va_bento.settings import Settings
from sa2va_bento.web.access import Access
from sa2va_bento.web.encoding import Compression, Decompression
from sa2va_bento.web.responses import RETRY_AFTER_S, contract_error, error_response

REQUEST_ID = "X-Request-ID"
PICKLE = "application/vnd.bentoml+pickle"
_CLEAN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def middlewares(settings: Settings) -> Iterator[tuple[type, dict[str, Any]]]:
    """Classes and their options, outermost first."""
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
    yield Compression, {}
    yield RequestContext, {}
    yield ErrorShape, {}
    yield Access, {"keys": settings.keys, "per_minute": settings.rate_limit}
    yield InFlightLimit, {"limit": in_flight_limit(settings)}
    yield BodyLimit, {"limit": settings.max_body_bytes}
    yield Decompression, {"limit": settings.max_body_bytes}


def in_flight_limit(settings: Settings) -> int:
    """Requests whose bodies may be held at once: those that may wait, and as many that are read or answered."""
    return 2 * settings.max_queue + 16


class RequestContext:
    """Gives a request its id (the client's, if it is clean) and its time of arrival, and answers with the id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _CLEAN_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {}).update(request_id=request_id, arrived=asyncio.get_running_loop().time())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)


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
        if status in (429, 503):
            headers.setdefault("retry-after", str(RETRY_AFTER_S))
        self.started = True
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


class InFlightLimit:
    """Turns POST requests away, before their bodies are read, when too many are under way."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self._limit, self._count = app, limit, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        if self._count >= self._limit:
            error = OverloadedError(f"{self._count} requests are under way already; try again later")
            return await error_response(error, scope)(scope, receive, send)
        self._count += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._count -= 1


class BodyLimit:
    """Refuses bodies over `limit` bytes: by their announced length at once, else while they stream in.

    BentoML's pickled bodies are refused here too; it would do so itself, but with a traceback in the log.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if refusal := self._refusal(Headers(scope=scope)):
            return await error_response(refusal, scope)(scope, receive, send)
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise self._too_large()
            return message

        await self.app(scope, receive_counted, send)

    def _refusal(self, headers: Headers) -> Sa2VAError | None:
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limit:
            return self._too_large()
        if headers.get("content-type", "").startswith(PICKLE):
            return UnsupportedMediaError("pickled bodies are never read")
        return None

    def _too_large(self) -> PayloadTooLargeError:
        return PayloadTooLargeError(f"the body is over the limit of {self._limit / 2**20:g} MiB")

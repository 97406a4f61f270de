"""Compressed bodies: requests come in inflated and still bounded, answers go out compressed to those who ask for it."""

import asyncio
import re
import zlib
from collections import deque
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError, UnsupportedMediaError
from sa2va_bento.web.errors import error_response
from sa2va_bento.web.memory_budget import MemoryBudget, MemoryShare

PIECE = 256 * 1024
"""Most bytes that are inflated before other requests get a turn."""


class Compression(GZipMiddleware):
    """Compresses answers with gzip for clients that accept it; event streams and small answers stay as they are."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, minimum_size=1024, compresslevel=4)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        encoding = "gzip" if _accepts_gzip(Headers(scope=scope).get("accept-encoding", "")) else "identity"
        await super().__call__(_with_headers(scope, {"accept-encoding": encoding}), receive, send)


def _accepts_gzip(header: str) -> bool:
    """As RFC 9110 weighs codings: gzip by its name, else by `*`, and not with a weight of 0."""
    codings = {
        name: weight for name, _, weight in (item.partition(";") for item in "".join(header.lower().split()).split(","))
    }
    weight = codings.get("gzip", codings.get("*", "q=0"))
    return not re.fullmatch(r"q=0(\.0*)?", weight)


def _with_headers(scope: Scope, changes: dict[str, str | None]) -> Scope:
    """The scope with headers replaced, or left out where None."""
    changed = {**scope, "headers": list(scope["headers"])}
    headers = MutableHeaders(scope=changed)
    for name, value in changes.items():
        del headers[name]
        if value is not None:
            headers[name] = value
    return changed


class Decompression:
    """Inflates gzip bodies once they have come whole, and refuses them once they are over `limit` bytes: one that never
    ends holds no more than its client has sent. What is inflated counts against the budget of all bodies."""

    def __init__(self, app: ASGIApp, limit: int, budget: MemoryBudget) -> None:
        self.app, self._limit, self._budget = app, limit, budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        coding = Headers(scope=scope).get("content-encoding", "identity").strip().lower()
        if coding in ("identity", ""):
            return await self.app(scope, receive, send)
        if coding not in ("gzip", "x-gzip"):
            error = UnsupportedMediaError("content encoding must be gzip")
            return await error_response(error, scope)(scope, receive, send)
        plain = _with_headers(scope, {"content-encoding": None, "content-length": None})
        with self._budget.share() as share:
            await self.app(plain, _InflatedReceive(receive, self._limit, share), send)


class _InflatedReceive:
    """A `receive` whose body is inflated, in pieces of `PIECE` bytes at most."""

    def __init__(self, receive: Receive, limit: int, share: MemoryShare) -> None:
        self._receive, self._limit, self._share = receive, limit, share
        self._inflater = Inflater()
        self._compressed: deque[bytes] = deque()
        self._received = 0
        self._ended = self._finished = False

    async def __call__(self) -> Message:
        while not self._ended:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._compressed.append(message.get("body", b""))
            self._ended = not message.get("more_body", False)
        if self._finished:
            return await self._receive()
        if piece := self._next():
            return await self._counted(piece)
        self._inflater.check_complete()
        self._finished = True
        return {"type": "http.request", "body": b"", "more_body": False}

    def _next(self) -> bytes:
        while not (piece := self._inflater.take()) and self._compressed:
            self._inflater.feed(self._compressed.popleft())
        return piece

    async def _counted(self, piece: bytes) -> Message:
        self._received += len(piece)
        if self._received > self._limit:
            raise PayloadTooLargeError(f"the inflated body is over the limit of {self._limit / 2**20:g} MiB")
        self._share.take(len(piece))
        await asyncio.sleep(0)
        return {"type": "http.request", "body": piece, "more_body": True}


class Inflater:
    """Inflates a gzip stream piece by piece, so that a small body can't become a large one unseen."""

    def __init__(self) -> None:
        self._pending = b""
        self._member = _new_member()
        self._more = False  # the member may hold output back although all input was taken

    def feed(self, data: bytes) -> None:
        """Adds compressed bytes."""
        self._pending += data

    def take(self) -> bytes:
        """The next bytes, `PIECE` at most; none when more must be fed first.

        Raises:
            BadRequestError: the stream is damaged.
        """
        while self._pending or self._more:
            if self._member.eof:  # a stream may consist of several, one after the other
                self._member = _new_member()
            if piece := self._inflate():
                return piece
        return b""

    def check_complete(self) -> None:
        """Raises BadRequestError unless the stream has come to its end."""
        if not self._member.eof or self._pending:
            raise BadRequestError("the gzip body is truncated")

    def _inflate(self) -> bytes:
        member = self._member
        try:
            piece = member.decompress(self._pending, PIECE)
        except zlib.error:
            raise BadRequestError("the body is not valid gzip") from None
        self._pending = member.unused_data if member.eof else member.unconsumed_tail
        self._more = len(piece) == PIECE and not member.eof
        return piece


def _new_member() -> Any:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)

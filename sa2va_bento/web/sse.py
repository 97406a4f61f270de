"""Server-sent events: how they are written, and a response that stops its source at once when the client leaves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sa2va_bento.types import RequestContext

LATE_READER_S = 30
"""Seconds past its deadline in which a stream may still be read to its end."""

HEARTBEAT = b": still working\n\n"
"""A comment: clients skip it, proxies see that the connection lives."""


def sse_event(data: str, name: str | None = None) -> bytes:
    """One event; `data` is a single line, such as JSON without line breaks."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data}\n\n".encode()


async def until_disconnected(receive: Receive) -> None:
    """Returns once the client is gone; only after the request's body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Sends events until they end, the client leaves or stops reading; then calls `on_end`."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], on_end: Callable[[], object], context: RequestContext) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._on_end, self._context = events, on_end, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(until_disconnected(receive))
        patience_s = self._context.left_s + LATE_READER_S
        try:
            await asyncio.wait({sending, leaving}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._on_end()
            leaving.cancel()
            sending.cancel()
        with suppress(asyncio.CancelledError, OSError):  # the client left, or reads no more
            await sending

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for data in self._events:
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

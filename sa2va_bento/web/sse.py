"""Server-sent events: how they are written, and a response that stops its source at once when the client leaves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

HALF_CLOSED = "half_closed"
"""Name in a request's state of the event that its client has sent all it will: it may be gone, or still read."""
PROBE_S = 0.25

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


async def _probe(half_closed: asyncio.Event | None, send: Send) -> None:
    """Once the client has sent its last, comments tell whether it still reads: those to one that is gone fail."""
    if half_closed is None:
        return
    await half_closed.wait()
    with suppress(RuntimeError, OSError):  # the stream has ended meanwhile
        while True:
            await send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
            await asyncio.sleep(PROBE_S)


class EventStream(Response):
    """Sends events until they end or the client leaves; then calls `on_end`."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], on_end: Callable[[], object]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._on_end = events, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(until_disconnected(receive))
        probing = asyncio.ensure_future(_probe(scope.get("state", {}).get(HALF_CLOSED), send))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._on_end()
            for task in (leaving, probing, sending):
                task.cancel()
        with suppress(asyncio.CancelledError, OSError):  # the client left
            await sending

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for data in self._events:
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

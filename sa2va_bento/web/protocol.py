"""HTTP/1.1 on a connection, with limits: uvicorn's h11 protocol, which strangers can't hold on to.

uvicorn has no time limit for a request's head or its body, nor for a reader that does not read, and closes a connection
whose other side has sent all it will (RFC 9112 9.6 lets that side wait for its answer). Here: a head must be complete
in time and of a bounded size (431), a body must keep coming (408), an answer must keep being read; an address has a
share of the connections; and an answer that comes before its request's body was read whole can be read, since the rest
of the body is drained.
"""

import asyncio
import json
import socket
import struct
import sys
from collections import Counter
from typing import Any, ClassVar, Protocol, cast

import uvicorn.config
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from sa2va_bento.settings import Settings
from sa2va_bento.web.access import PEER
from sa2va_bento.web.coming import STATE, Coming
from sa2va_bento.web.sse import HALF_CLOSED

GRACE_S = 10.0
"""Seconds in which a body may begin as slowly as it likes."""
SLOWEST = 8 * 1024
"""Bytes a second that a body must have come at on average, once the grace is over."""
TICK_S = 1.0
"""Between two looks at a body that is coming, and two probes of a client that has sent its last."""
LINGER_S = 10.0
"""Seconds in which the rest of a refused body is read and thrown away."""
LAST_HEAD_S = 1.0
"""Seconds in which a connection that was made as the server stopped may still send a head."""
SHARE = 0.5
"""Of all connections, those that one address may have."""

PHRASES = {
    400: "the request is not valid HTTP",
    408: "the request did not arrive in time",
    431: "the request's head is too large",
    503: "too many connections; try again later",
}


class Gate(Protocol):
    """Refuses what can't be served now: as it is, in bytes, or by an application; None lets it through."""

    def at_once(self, data: bytes) -> bytes | None: ...

    def __call__(self, scope: Any) -> Any: ...


class GuardedProtocol(H11Protocol):
    """A connection. Made by `uvicorn`, once for each; the limits are class attributes that `install` sets."""

    head_timeout_s: ClassVar[float] = 10.0
    write_timeout_s: ClassVar[float] = 30.0
    max_connections: ClassVar[int] = 1000
    by_address: ClassVar[Counter[str]] = Counter()
    gate: ClassVar["Gate | None"] = None
    coming: Coming | None = None
    """What is noted of the body that is coming."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, _Transport(self, transport))
        self._application, self.app = self.app, self._answer
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._received = 0  # bytes of the body that is coming
        self._lingering = False
        self._half_closed = asyncio.Event()
        self._address = self.client[0] if self.client else ""
        self.by_address[self._address] += 1
        if self._is_one_too_many():
            return self._refuse(503)
        self._start("head", self.head_timeout_s, lambda: self._refuse(408))

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self.by_address[self._address] -= 1
        if not self.by_address[self._address]:
            del self.by_address[self._address]
        self._note_end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if self.coming:
            self.coming.received += len(data)
        elif self.gate and self._is_idle and (answer := self.gate.at_once(data)):
            return self._end_with(answer)
        had_head = self._is_in_request
        super().data_received(data)
        if self._is_in_request:
            self._stop("head")
            self._received += len(data)
            if not had_head and self.cycle.more_body:
                self._received = 0
                self._watch_body(self.loop.time())
        elif not self.transport.is_closing() and self.conn.trailing_data[0] and "head" not in self._timers:
            self._start("head", self.head_timeout_s, lambda: self._refuse(408))  # of a later request, begun

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The client has sent all it will. It may still wait for its answer, or be gone: only writing tells."""
        if self._lingering or not self._is_in_request or self.cycle.response_complete:
            return False
        if self.cycle.more_body:  # it left amid its request
            return False
        self._half_closed.set()
        self._probe()
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start("write", self.write_timeout_s, self._reset)

    def resume_writing(self) -> None:
        self._stop("write")
        super().resume_writing()

    def on_response_complete(self) -> None:
        """An answer may come before the body of its request: what still comes of that is read and thrown away."""
        self._note_end()
        if self._is_in_request and self.cycle.more_body:
            self._linger()
        else:
            super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        hint = getattr(sys.exc_info()[1], "error_status_hint", 400)
        self._refuse(hint if hint in PHRASES else 400)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """The application; an answer that comes before the whole body closes the connection, and says so."""

        async def send_last(message: Any) -> None:
            if message["type"] == "http.response.start" and self.cycle.more_body:
                others = [header for header in message.get("headers", ()) if header[0].lower() != CLOSE_HEADER[0]]
                message = {**message, "headers": [*others, CLOSE_HEADER]}
            await send(message)

        scope["state"][PEER] = self._address  # uvicorn rewrites `client` for every loopback client that asks it to
        scope["state"][HALF_CLOSED] = self._half_closed  # a stream finds out by itself whether somebody reads
        if self.coming:
            scope["state"][STATE] = self.coming
        refuser = self.gate(scope) if self.gate else None
        self.coming = scope["state"].get(STATE)
        await (refuser or self._application)(scope, receive, send_last)  # pyright: ignore[reportArgumentType]

    @property
    def must_linger(self) -> bool:
        """Whether closing now would reset the connection under the client, who is still sending."""
        return self._lingering or (bool(self.cycle) and self.cycle.response_complete and self.cycle.more_body)

    @property
    def _is_in_request(self) -> bool:
        return bool(self.cycle) and not (self.cycle.response_complete and not self.cycle.more_body)

    @property
    def _is_idle(self) -> bool:
        """Whether what comes now begins a request."""
        return not self._is_in_request and not self.conn.trailing_data[0]

    def _note_end(self) -> None:
        if self.coming:
            self.coming.is_done = True
            self.coming = None

    def _is_one_too_many(self) -> bool:
        of_one = self.by_address[self._address] > max(1, int(SHARE * self.max_connections))
        return of_one or self.by_address.total() > self.max_connections

    def _watch_body(self, began: float) -> None:
        """Looks from time to time whether a body keeps coming."""
        if not self.cycle.more_body or self._lingering:
            return
        if self._received < (self.loop.time() - began - GRACE_S) * SLOWEST:
            if not self.cycle.response_started:
                return self._refuse(408)
            return self.transport.abort()
        self._start("body", TICK_S, lambda: self._watch_body(began))

    def shutdown(self) -> None:
        """The server stops. Who has just connected gets to say what for, and hears that it is too late."""
        if not self.cycle and not self._lingering:
            return self._start("head", LAST_HEAD_S, self.transport.close)
        super().shutdown()

    def _reset(self) -> None:
        """Ends a connection at once, with all that the system still holds for its reader."""
        if found := self.transport.get_extra_info("socket"):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _probe(self) -> None:
        """Writes to a client that has sent its last, until its answer begins. One that has gone resets the connection;
        to one that waits, a further `100 Continue` means nothing (RFC 9110 15.2)."""
        if self.transport.is_closing() or self.cycle.response_started:
            return
        if self.scope["http_version"] != "1.0":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._start("probe", TICK_S / 4, self._probe)

    def _linger(self) -> None:
        """Closes once the client has, or after a while: closing at once would reset the connection, and the answer in
        it with it."""
        self._lingering = True
        self._stop("body")
        self.server_state.total_requests += 1
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._start("linger", LINGER_S, self.transport.abort)

    def _refuse(self, status: int) -> None:
        """Answers what never became a request of the application, and hangs up."""
        if self.transport.is_closing():
            return
        body = json.dumps({"error": PHRASES[status]}).encode()
        head = [
            b"HTTP/1.1 %d %s" % (status, STATUS_PHRASES[status]),
            b"Content-Type: application/json",
            b"Content-Length: %d" % len(body),
            b"Connection: close",
            *([b"Retry-After: 1"] if status == 503 else []),
        ]
        self._end_with(b"\r\n".join([*head, b"", body]))

    def _end_with(self, answer: bytes) -> None:
        """Writes an answer and hangs up."""
        self._unset_keepalive_if_required()
        self.transport.write(answer)
        for timer in self._timers.values():
            timer.cancel()
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._linger()

    def _start(self, name: str, seconds: float, then: Any) -> None:
        self._stop(name)
        self._timers[name] = self.loop.call_later(seconds, then)

    def _stop(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()


class _Transport:
    """A transport that does not close under a client who is still sending."""

    def __init__(self, protocol: GuardedProtocol, transport: asyncio.Transport) -> None:
        self._protocol, self._transport = protocol, transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Unless the connection lingers: then it closes by itself."""
        if not self._protocol.must_linger:
            self._transport.close()


def protocol_of(settings: Settings, gate: "Gate | None" = None) -> type[GuardedProtocol]:
    """The protocol with the limits of the settings, and a gate."""
    limits: dict[str, Any] = {
        "head_timeout_s": settings.head_timeout_s,
        "write_timeout_s": settings.write_timeout_s,
        "max_connections": settings.max_connections,
        "by_address": Counter(),
        "gate": gate,
    }
    return type("Protocol", (GuardedProtocol,), limits)


def install(settings: Settings, gate: "Gate | None" = None) -> None:
    """Makes uvicorn, which BentoML starts with the protocol of its choice ("auto"), choose this one."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = protocol_of(settings, gate)  # pyright: ignore[reportArgumentType]

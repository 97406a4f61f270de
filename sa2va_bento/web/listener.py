"""The door: accepts connections and, while there is no room, refuses in batches whoever comes to ask the model.

A refusal by the event loop's own machinery costs a transport, a protocol, a parser, and a turn of the interpreter for
each of their events; at ten times the load there are nine refusals for each answer. Here what has come within some
milliseconds is refused at once, on the bare socket: the head is peeked at, the answer sent, and the body thrown away by
the kernel, which need not even copy it (`MSG_TRUNC`). Everything else goes to the protocol, unread.
"""

import asyncio
import logging
import re
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from sa2va_bento.web.coming import Coming

logger = logging.getLogger(__name__)

TICK_S = 0.008
"""Between two batches."""
CALM_S = 0.1
"""For which there must have been room until connections are accepted one by one again."""
MOST_AT_ONCE = 256
"""Connections that a batch accepts."""
PATIENCE_S = 0.05
"""For which a head may be on its way; then the protocol has its own limits for it."""
PEEK = 8 * 1024
"""Bytes of a head that are looked at."""
LINGER_S = 10.0
"""For which the body of a refused request is thrown away."""
MOST_DRAINED = 2**28
"""Bytes of it."""
SINK = 2**20
"""Bytes that are thrown away at a time."""
TURNS = 32
"""Of these for one connection, until the others have theirs."""
_THROW_AWAY = socket.MSG_DONTWAIT | (socket.MSG_TRUNC if sys.platform == "linux" else 0)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,15}) *\r\n", re.IGNORECASE)


class Gate(Protocol):
    """Refuses what can't be served now."""

    @property
    def is_closed(self) -> bool: ...

    def at_once(self, data: bytes) -> bytes | None: ...

    def expect(self, data: bytes) -> Coming | None: ...


@dataclass
class _Guest:
    """A connection whose head is awaited, and then, if it was refused, whose body."""

    socket: socket.socket
    until: float
    left: int = MOST_DRAINED
    """Bytes that are still to come of it."""


class Listener:
    """Stands for the server that `asyncio` would make of a listening socket.

    Args:
        loop: On which everything happens.
        listening: The socket; it is closed with this.
        make_protocol: What takes a connection over; told what was noted of its body, if anything.
        gate: Who is refused.
        most: Connections that may wait here at once.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        make_protocol: Callable[[Coming | None], asyncio.Protocol],
        gate: Gate,
        most: int,
    ) -> None:
        self._loop, self._listening = loop, listening
        self._make_protocol, self._gate, self._most = make_protocol, gate, most
        self._heads: list[_Guest] = []
        self._bodies: list[_Guest] = []
        self._sink = bytearray(SINK)
        self._handing_over: set[asyncio.Task[object]] = set()
        self._calm_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = True
        listening.setblocking(False)
        loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Accepts who waits, and nobody else."""
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._listening)
        self._heads += self._accepted()
        self._listening.close()
        self._tick()

    async def wait_closed(self) -> None:
        """Until nobody is left here."""
        while self._heads or self._bodies or self._handing_over:
            await asyncio.sleep(TICK_S)

    def _accept(self) -> None:
        """A connection has come, and it is calm; unless it can't be accepted."""
        guests = [] if self._gate.is_closed else self._accepted()
        for guest in guests:
            self._hand_over(guest)
        if guests:
            return
        self._loop.remove_reader(self._listening)
        self._calm_since = None
        self._tick()

    def _accepted(self) -> list[_Guest]:
        """Those that have connected since."""
        found: list[_Guest] = []
        with suppress(OSError):  # there are no more, or no more descriptors
            while len(found) < min(MOST_AT_ONCE, self._most - len(self._heads) - len(self._bodies)):
                connection, _ = self._listening.accept()
                found.append(_Guest(connection, time.monotonic() + PATIENCE_S))
        return found

    def _tick(self) -> None:
        """A batch."""
        if self._timer:
            self._timer.cancel()
        if self._is_open:
            self._heads += self._accepted()
        now = time.monotonic()
        self._heads = [guest for guest in self._heads if self._awaits_head(guest, now)]
        self._bodies = [guest for guest in self._bodies if self._awaits_body(guest, now)]
        if self._heads or self._bodies or not self._is_calm(now):
            self._timer = self._loop.call_later(TICK_S, self._tick)
        elif self._is_open:
            self._loop.add_reader(self._listening, self._accept)

    def _is_calm(self, now: float) -> bool:
        if self._gate.is_closed:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        return not self._is_open or (self._calm_since is not None and now > self._calm_since + CALM_S)

    def _awaits_head(self, guest: _Guest, now: float) -> bool:
        """Refuses a connection, or hands it over, unless nothing has come of it yet."""
        try:
            data = guest.socket.recv(PEEK, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            if now < guest.until and self._is_open:
                return True
            data = b""
        except OSError:
            guest.socket.close()
            return False
        if answer := self._gate.at_once(data):
            self._refuse(guest, data, answer, now)
        else:
            self._hand_over(guest, self._gate.expect(data))
        return False

    def _hand_over(self, guest: _Guest, coming: Coming | None = None) -> None:
        guest.socket.setblocking(False)

        async def connect() -> None:
            try:
                await self._loop.connect_accepted_socket(lambda: self._make_protocol(coming), guest.socket)
            except OSError:
                guest.socket.close()

        task = self._loop.create_task(connect())
        self._handing_over.add(task)
        task.add_done_callback(self._handing_over.discard)

    def _refuse(self, guest: _Guest, data: bytes, answer: bytes, now: float) -> None:
        """Answers, and throws the body away: closing before that would reset the connection, and the answer with it."""
        end = data.find(b"\r\n\r\n") + 4
        if announced := _LENGTH.search(data, 0, end):
            guest.left = min(MOST_DRAINED, end + int(announced[1]))
        guest.until = now + LINGER_S
        try:
            guest.socket.send(answer, socket.MSG_DONTWAIT)
        except OSError:
            guest.socket.close()
            return
        if self._awaits_body(guest, now):
            with suppress(OSError):
                guest.socket.shutdown(socket.SHUT_WR)
            self._bodies.append(guest)

    def _awaits_body(self, guest: _Guest, now: float) -> bool:
        """Throws away what has come of a body; closes the connection once that is all, or more than can be."""
        try:
            for _ in range(TURNS):
                thrown = guest.socket.recv_into(self._sink, SINK, _THROW_AWAY)
                guest.left -= thrown
                if not thrown or guest.left <= 0:
                    guest.socket.close()
                    return False
        except BlockingIOError:
            if now < guest.until:
                return True
            guest.socket.close()
            return False
        except OSError:
            guest.socket.close()
            return False
        return True

"""How a worker stops: at once for those who come, and in its own time for those who are there.

uvicorn closes its socket first. But under BentoML that is the supervisor's as well: who connects while the last
requests are answered hangs, and is cut off in the end. Here the socket stays open until they are: new requests are
answered 503 with `Retry-After`, as `/readyz` is, so that load balancers and clients go elsewhere.
"""

import asyncio
import functools
import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.flow_control import CLOSE_HEADER

from sa2va_bento.settings import NO_KEYS
from sa2va_bento.web import startup
from sa2va_bento.web.coming import Coming
from sa2va_bento.web.listener import Listener
from sa2va_bento.web.runtime import Runtime

logger = logging.getLogger(__name__)

LAST_S = 2.0
"""Seconds that are left, after the grace, to say that there was no time for an answer."""
TICK_S = 0.05


class Server(uvicorn.Server):
    """uvicorn's server, which finishes what it has begun before it closes."""

    def __init__(self, config: uvicorn.Config, runtime: Runtime) -> None:
        super().__init__(config)
        self._runtime = runtime

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """At once: the server looks at its flag ten times a second only."""
        self._drain()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """With a door of our own where it can see what comes: not through TLS."""
        gate = getattr(self.config.http_protocol_class, "gate", None)
        if gate is None or self.config.is_ssl or not sockets:
            await super().startup(sockets)
        else:
            await super().startup([])
            await self._stay_closed_beside_others()
            loop, most = asyncio.get_running_loop(), self._runtime.settings.max_connections
            self.servers = [Listener(loop, listening, self._connection, gate, most) for listening in sockets]  # pyright: ignore[reportAttributeAccessIssue]
        if self._runtime.settings.api_keys is None:
            warn_if_open(sockets or ())

    async def _stay_closed_beside_others(self) -> None:
        """While the model loads, and other workers answer who comes: here they would hear 503."""
        while startup.is_another_ready() and not self._runtime.is_ready and not self.should_exit:
            await asyncio.sleep(TICK_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._drain()
        if startup.is_orphan():  # whoever takes the service's place needs its port
            self._stop_listening()
        await self._finish(time.monotonic() + self._runtime.grace_s)
        await self._close(sockets or ())
        self.config.timeout_graceful_shutdown = round(LAST_S)
        await super().shutdown(sockets)
        if startup.is_orphan():
            startup.tidy_up()

    def _connection(self, coming: Coming | None) -> asyncio.Protocol:
        """What takes a connection over that has come in by the door."""
        make: Any = self.config.http_protocol_class
        protocol = make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        protocol.coming = coming
        return protocol

    def _drain(self) -> None:
        """From now on nothing is begun, and the answers that say so end their connections."""
        self._runtime.drain()
        known = self.config.encoded_headers
        if CLOSE_HEADER not in known:
            self.config.encoded_headers = [*known, CLOSE_HEADER]
            self.server_state.default_headers = [*self.server_state.default_headers, CLOSE_HEADER]

    async def _finish(self, until: float) -> None:
        """Waits for the requests that run, and for their answers to have gone out; in the end it lets both go."""
        running = set(self.server_state.tasks)
        if not await self._wait(lambda: all(task.done() for task in running), until):
            logger.warning("stopping: %d requests take longer than they are given", _undone(running))
            await asyncio.to_thread(self._runtime.close)
            until = time.monotonic() + LAST_S
            await self._wait(lambda: all(task.done() for task in running), until)
        connected = list(self.server_state.connections)
        for connection in connected:
            connection.shutdown()
        await self._wait(lambda: self.server_state.connections.isdisjoint(connected), max(until, time.monotonic() + 1))

    async def _close(self, sockets: Collection[socket.socket]) -> None:
        """Takes no more connections, and answers those that it has. Where no other worker takes the socket over, nobody
        shall wait in its queue, and be cut off when the supervisor closes it: it is shut for all processes."""
        shared = [listener.dup() for listener in sockets] if startup.is_service_stopping() else []
        self._stop_listening()  # and accepts who waits
        for listener in shared:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        await asyncio.sleep(TICK_S)
        await self._wait(lambda: not self.server_state.connections, time.monotonic() + 1)
        for connection in self.server_state.connections:
            connection.transport.abort()

    async def _wait(self, done: Callable[[], bool], until: float) -> bool:
        while not done() and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(TICK_S)
        return done()

    def _stop_listening(self) -> None:
        for server in self.servers:
            server.close()


def _undone(tasks: Collection["asyncio.Task[None]"]) -> int:
    return sum(not task.done() for task in tasks)


def warn_if_open(listeners: Collection[socket.socket]) -> None:
    """Says so where a service without keys can be reached from other machines."""
    for listener in listeners:
        if listener.family in (socket.AF_INET, socket.AF_INET6):
            host, port = listener.getsockname()[:2]
            if not ipaddress.ip_address(host).is_loopback:
                line = "listens on %s port %d without keys: whoever reaches it may use it (SA2VA_API_KEYS=%s: as meant)"
                logger.warning(line, host, port, NO_KEYS)


def install(runtime: Runtime) -> None:
    """Makes this the server of the worker, which BentoML starts after the service was imported."""
    uvicorn.Server = functools.partial(Server, runtime=runtime)  # pyright: ignore[reportAttributeAccessIssue]

"""The door: who is refused there reads why, however large the body; who is not never notices it."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from sa2va_bento.errors import OverloadedError
from sa2va_bento.web import coming, listener
from sa2va_bento.web.coming import Coming, note_arrived
from sa2va_bento.web.gate import Gate
from sa2va_bento.web.listener import Listener

HEAD = b"POST /process HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


class Room:
    """A model that has room for as many as a test says."""

    def __init__(self) -> None:
        self.capacity, self.queue_depth = 1, 0

    def check_room(self, left_s: float, coming: int = 0) -> None:
        if self.queue_depth + coming >= self.capacity:
            raise OverloadedError("the queue is full", 7)


class Echo(asyncio.Protocol):
    """Answers with what has come."""

    made: list[Coming | None] = []  # noqa: RUF012 - of all of them, for the tests to read

    def __init__(self, coming: Coming | None) -> None:
        self.made.append(coming)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"seen " + data)


def at_the_door(test: Callable[[tuple[str, int], Room, Listener], Awaitable[None]]) -> None:
    """Runs a test with the address of a door."""

    async def run() -> None:
        Echo.made.clear()
        room = Room()
        runtime: Any = SimpleNamespace(settings=SimpleNamespace(timeout_s=60.0), model=room)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = listening.getsockname()
            door = Listener(asyncio.get_running_loop(), listening, Echo, Gate(runtime, lambda _: iter(())), 50)
            try:
                await asyncio.wait_for(test(address, room, door), 30)
            finally:
                door.close()
                await door.wait_closed()

    asyncio.run(run())


async def ask(address: tuple[str, int], *pieces: bytes, pause_s: float = 0.0, size: int = 2**16) -> bytes:
    """Sends all, then reads what comes, to the end or to the first answer's."""
    reader, writer = await asyncio.open_connection(*address)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause_s)
    try:
        return await reader.read(size)
    finally:
        writer.close()


def with_body(size: int) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % size + bytes(size)


@pytest.mark.parametrize("size", [0, 10, 100_000, 20_000_000])
def test_refused_whatever_the_size_of_the_body(size: int) -> None:
    async def test(address: tuple[str, int], room: Room, door: Listener) -> None:
        room.capacity = 0
        answers = await asyncio.gather(*(ask(address, with_body(size)) for _ in range(10)))
        for answer in answers:
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 7\r\n" in answer
            assert b"the queue is full" in answer
        assert Echo.made == []

    at_the_door(test)


BODIES = {
    "in pieces": [HEAD + b"Content-Length: 600000\r\n\r\n", *[bytes(100_000)] * 6],
    "without a length": [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"3\r\nabc\r\n"] * 5, b"0\r\n\r\n"],
    "with an id": [HEAD + b"X-Request-ID: mine-1\r\nContent-Length: 0\r\n\r\n"],
}


@pytest.mark.parametrize("name", BODIES)
def test_refused_however_it_comes(name: str) -> None:
    async def test(address: tuple[str, int], room: Room, door: Listener) -> None:
        room.capacity = 0
        answer = await ask(address, *BODIES[name], pause_s=0.02)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert (b"mine-1" in answer) is (name == "with an id")

    at_the_door(test)


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\n\r\n",
        HEAD + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",
        HEAD + b"Origin: http://page.example\r\n\r\n",
        b"nonsense",
        b"\x16\x03\x01",
    ],
)
def test_what_is_no_plain_question_goes_through(head: bytes, is_full: bool) -> None:
    async def test(address: tuple[str, int], room: Room, door: Listener) -> None:
        room.capacity = 0 if is_full else 1
        assert await ask(address, head) == b"seen " + head

    at_the_door(test)


def test_who_says_nothing_for_a_while_goes_through() -> None:
    async def test(address: tuple[str, int], room: Room, door: Listener) -> None:
        room.capacity = 0
        reader, writer = await asyncio.open_connection(*address)
        await asyncio.sleep(3 * listener.PATIENCE_S)
        writer.write(HEAD)
        assert await reader.read(100) == (b"seen " + HEAD)[:100]
        writer.close()

    at_the_door(test)


def test_no_more_are_let_in_than_there_is_room_for() -> None:
    """While the body of one is on its way, the place that it will take is not promised to others."""

    async def test(address: tuple[str, int], room: Room, door: Listener) -> None:
        room.capacity = room.queue_depth = 10
        assert (await ask(address, with_body(9))).startswith(b"HTTP/1.1 503 ")
        room.queue_depth = 9
        answers = await asyncio.gather(*(ask(address, with_body(9)) for _ in range(8)))
        assert sum(answer.startswith(b"seen ") for answer in answers) == 1
        (noted,) = Echo.made
        assert noted
        note_arrived({"state": {coming.STATE: noted}})
        assert (await ask(address, with_body(9))).startswith(b"seen ")

    at_the_door(test)


def test_after_a_rush_everything_is_as_before() -> None:
    async def test(address: tuple[str, int], room: Room, door: Listener) -> None:
        room.capacity = 0
        await asyncio.gather(*(ask(address, with_body(9)) for _ in range(20)))
        room.capacity = 100
        await asyncio.sleep(3 * listener.CALM_S)
        assert door._timer is None or door._timer.when() < asyncio.get_running_loop().time()  # nothing ticks
        assert (await ask(address, with_body(9))).startswith(b"seen ")

    at_the_door(test)


def test_more_than_may_wait_are_served_all_the_same() -> None:
    async def test(address: tuple[str, int], room: Room, door: Listener) -> None:
        room.capacity = 0
        answers = await asyncio.gather(*(ask(address, with_body(50_000)) for _ in range(200)))
        assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in answers)

    at_the_door(test)


async def drip(writer: asyncio.StreamWriter) -> None:
    for _ in range(200):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


def test_a_refused_client_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "LINGER_S", 0.3)

    async def test(address: tuple[str, int], room: Room, door: Listener) -> None:
        room.capacity = 0
        begun = time.monotonic()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(HEAD + b"Content-Length: 100000\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        with pytest.raises(ConnectionError):
            await drip(writer)
        assert time.monotonic() < begun + 5
        writer.close()

    at_the_door(test)


def test_who_waits_when_the_door_closes_is_let_in() -> None:
    async def test(address: tuple[str, int], room: Room, door: Listener) -> None:
        with socket.create_connection(address) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            door.close()
            await door.wait_closed()
            connection.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(connection, 100) == b"seen GET / HTTP/1.1\r\n\r\n"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)

    at_the_door(test)


def test_bodies_that_drip_take_no_place() -> None:
    brisk, slow = Coming(), Coming()
    now = brisk.began + 10 * coming.GRACE_S
    brisk.received, slow.received = 100 * coming.BRISK, 10
    assert brisk.is_brisk(now)
    assert not slow.is_brisk(now)
    assert slow.is_brisk(slow.began)
    brisk.is_done = True
    assert not brisk.is_brisk(now)


def test_announcing_many_shuts_nobody_out() -> None:
    """Heads alone count no more than those that wait; bodies of which much has come count all."""
    room = Room()
    room.capacity = 10
    runtime: Any = SimpleNamespace(settings=SimpleNamespace(timeout_s=60.0), model=room)
    gate = Gate(runtime, lambda _: iter(()))
    head = HEAD + b"\r\n"
    announced = [gate.expect(head) for _ in range(50)]
    assert not gate.is_closed
    room.queue_depth = 5
    assert gate.is_closed
    room.queue_depth = 4
    assert not gate.is_closed
    for noted in announced[:6]:
        assert noted
        noted.received = coming.SURE
    assert gate.is_closed

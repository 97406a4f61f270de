"""Ten times the load that the service can take: what is still answered, and how it says no.

    python -m benchmarks.overload [--seconds 60] [--times 10] [--pictures small|12mp] [--out FILE.json]

First the capacity: users that wait for their answers. Then arrivals at a fixed rate, each on a connection of its own,
whatever becomes of the ones before. Server and client share the machine.
"""

import argparse
import asyncio
import json
import platform
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import psutil
import uvloop

from benchmarks.compare import free_port, running
from benchmarks.pictures import questions
from tests.hostile.attacks import photograph
from tests.pictures import b64

USERS = 24
"""Enough for every slot to be busy while the capacity is measured."""


@dataclass
class Outcomes:
    """What became of the requests: seconds by status, and those whose answer could not be read."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    unreadable: int = 0

    def note(self, status: int, seconds: float) -> None:
        self.seconds.setdefault(status, []).append(seconds)

    def quantile(self, status: int, share: float) -> float:
        found = sorted(self.seconds.get(status, [0.0]))
        return found[min(len(found) - 1, int(share * len(found)))]

    def count(self, status: int) -> int:
        return len(self.seconds.get(status, ()))


def bodies(kind: str, count: int) -> list[bytes]:
    """Different questions, as whole HTTP requests."""
    if kind == "small":
        asked = [{"base64Image": q.base64_image, "prompt": q.prompt} for q in questions(count, 7)]
    else:
        pictures = [b64(photograph(4000, 3000, seed)) for seed in range(min(count, 8))]
        asked = [
            {"base64Image": pictures[n % len(pictures)], "prompt": f"How many circles are there? ({n})"}
            for n in range(count)
        ]
    return [_request(json.dumps(fields).encode()) for fields in asked]


def _request(body: bytes) -> bytes:
    head = "POST /process HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _Client(asyncio.Protocol):
    """One request on a connection of its own, with as little work as can be: it shares the machine with the service."""

    def __init__(self, request: bytes, done: "asyncio.Future[bytes]") -> None:
        self._request, self._done, self._answer = request, done, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer = self._answer or data[:16]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(self._answer)


async def ask(port: int, request: bytes, outcomes: Outcomes) -> None:
    """Sends a request and notes what came back until the service closed the connection."""
    begun, loop = time.monotonic(), asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()
    try:
        await loop.create_connection(lambda: _Client(request, done), "127.0.0.1", port)
        outcomes.note(int((await done).split(b" ")[1]), time.monotonic() - begun)
    except (OSError, IndexError, ValueError):
        outcomes.unreadable += 1


async def capacity(port: int, requests: list[bytes], seconds: float) -> float:
    """Answers a second when users wait for theirs."""
    outcomes, end, place = Outcomes(), time.monotonic() + seconds, iter(range(10**9))

    async def user() -> None:
        while time.monotonic() < end:
            await ask(port, requests[next(place) % len(requests)], outcomes)

    await asyncio.gather(*(user() for _ in range(USERS)))
    return outcomes.count(200) / seconds


async def overload(port: int, requests: list[bytes], rate: float, seconds: float) -> Outcomes:
    """Arrivals at a rate, evenly spaced, whatever becomes of them."""
    outcomes, tasks, begun = Outcomes(), set(), time.monotonic()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
        task = asyncio.create_task(ask(port, requests[number % len(requests)], outcomes))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.wait(tasks, timeout=90)
    return outcomes


def measure(kind: str, times: float, seconds: float) -> dict[str, float]:
    """Serves the embedded model and loads it; figures in answers a second, milliseconds and megabytes."""
    port, requests = free_port(), bodies(kind, 256 if kind == "small" else 64)
    command = [str(Path(sys.executable).parent / "bentoml"), "serve", "service:Sa2VA", "--port", str(port)]
    with running(command, port):
        uvloop.run(capacity(port, requests, 5))
        able = uvloop.run(capacity(port, requests, min(20, seconds)))
        worker = _worker(port)
        before, begun = worker.memory_info().rss, time.monotonic()
        outcomes = uvloop.run(overload(port, requests, times * able, seconds))
        lasted = time.monotonic() - begun
        time.sleep(5)
        after = worker.memory_info().rss
    return {
        "capacity_per_s": able,
        "arrivals": times * able * seconds,
        "goodput_per_s": outcomes.count(200) / lasted,
        "goodput_of_capacity": outcomes.count(200) / lasted / able,
        "accepted_p50_ms": 1e3 * outcomes.quantile(200, 0.5),
        "accepted_p99_ms": 1e3 * outcomes.quantile(200, 0.99),
        "refused": outcomes.count(503),
        "refused_p50_ms": 1e3 * outcomes.quantile(503, 0.5),
        "refused_p99_ms": 1e3 * outcomes.quantile(503, 0.99),
        "other_statuses": sum(len(found) for status, found in outcomes.seconds.items() if status not in (200, 503)),
        "unreadable": outcomes.unreadable,
        "memory_before_mb": before / 2**20,
        "memory_grown_mb": (after - before) / 2**20,
    }


def _worker(port: int) -> psutil.Process:
    """The process that answers: of those around the socket the one with the most memory."""
    for connection in psutil.net_connections("tcp"):
        is_listening = connection.status == psutil.CONN_LISTEN and connection.pid
        if is_listening and getattr(connection.laddr, "port", None) == port:
            family = [psutil.Process(connection.pid), *psutil.Process(connection.pid).children(recursive=True)]
            return max(family, key=lambda process: process.memory_info().rss)
    raise SystemExit("the service does not listen")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--pictures", choices=["small", "12mp"], default="small")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    figures = measure(arguments.pictures, arguments.times, arguments.seconds)
    print(f"{platform.machine()}, {psutil.cpu_count()} cores, {arguments.pictures} pictures, {arguments.times:g} times")
    for name, value in figures.items():
        print(f"{name:<24}{value:>12.2f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

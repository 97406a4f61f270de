"""Ten times the load that the service can take: what is still answered, and how it says no.

    python -m benchmarks.overload [--seconds 60] [--times 10] [--rounds 3] [--pictures small|12mp] [--out FILE.json]

In each round first the capacity: users that wait for their answers. Then arrivals at a fixed rate, each on a connection
of its own, whatever becomes of the ones before. Figures are medians over the rounds; the goodput is that of the time
in which requests arrive. Server and client share the machine, so the client is a single loop around `epoll`.
"""

import argparse
import json
import platform
import select
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.compare import free_port, running
from benchmarks.pictures import questions
from tests.hostile.attacks import photograph
from tests.pictures import b64

USERS = 24
"""Enough for every slot to be busy while the capacity is measured."""
PATIENCE_S = 90
"""How long answers are waited for once nothing arrives any more."""


@dataclass
class Outcomes:
    """What became of the requests: seconds by status, and those whose answer could not be read. `ended` has when each
    answer came."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    ended: list[float] = field(default_factory=list)
    unreadable: int = 0

    def note(self, connection: "Connection", now: float) -> None:
        try:
            status = int(connection.answer.split(b" ")[1])
        except (IndexError, ValueError):
            self.unreadable += 1
            return
        self.seconds.setdefault(status, []).append(now - connection.begun)
        if status == 200:
            self.ended.append(now)

    def quantile(self, status: int, share: float) -> float:
        found = sorted(self.seconds.get(status, [0.0]))
        return found[min(len(found) - 1, int(share * len(found)))]

    def count(self, status: int) -> int:
        return len(self.seconds.get(status, ()))


class Connection:
    """One request on a connection of its own."""

    def __init__(self, port: int, request: bytes) -> None:
        self.begun = time.monotonic()
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", port))
        self.answer = b""
        self._unsent = memoryview(request)

    @property
    def is_sent(self) -> bool:
        return not self._unsent

    def go_on(self) -> bool:
        """Sends and reads what can be. Whether the connection has ended."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = memoryview(b"")  # the other side reads no more: it may have answered
        try:
            while piece := self.socket.recv(65_536):
                self.answer = self.answer or piece[:16]
        except BlockingIOError:
            return False
        except OSError:
            self.answer = b""  # a reset takes the answer with it
        return self.is_sent


class Client:
    """All connections, in one loop."""

    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self._port, self._requests = port, requests
        self._poll, self._open = select.epoll(), dict[int, Connection]()

    def open(self) -> None:
        connection = Connection(self._port, next(self._requests))
        number = connection.socket.fileno()
        self._open[number] = connection
        self._poll.register(number, select.EPOLLIN | select.EPOLLOUT)

    def work(self, until: float, outcomes: Outcomes) -> int:
        """Goes on with the connections until a moment, or until one has ended. How many have."""
        done = 0
        for number, _ in self._poll.poll(max(0.0, until - time.monotonic())):
            connection = self._open[number]
            was_sent = connection.is_sent
            if connection.go_on():
                outcomes.note(connection, time.monotonic())
                connection.socket.close()
                del self._open[number]
                done += 1
            elif connection.is_sent and not was_sent:
                self._poll.modify(number, select.EPOLLIN)
        return done

    def finish(self, outcomes: Outcomes) -> None:
        end = time.monotonic() + PATIENCE_S
        while self._open and time.monotonic() < end:
            self.work(end, outcomes)
        outcomes.unreadable += len(self._open)
        self._poll.close()


def capacity(port: int, requests: Iterator[bytes], seconds: float) -> float:
    """Answers a second when users wait for theirs."""
    client, outcomes, end = Client(port, requests), Outcomes(), time.monotonic() + seconds
    for _ in range(USERS):
        client.open()
    while time.monotonic() < end:
        for _ in range(client.work(end, outcomes)):
            client.open()
    rate = outcomes.count(200) / seconds
    client.finish(outcomes)
    return rate


def overload(port: int, requests: Iterator[bytes], rate: float, seconds: float) -> tuple[Outcomes, float]:
    """Arrivals at a rate, evenly spaced, whatever becomes of them; and the answers a second meanwhile."""
    client, outcomes, begun = Client(port, requests), Outcomes(), time.monotonic()
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        client.work(due, outcomes)
        while time.monotonic() < due:
            client.work(due, outcomes)
        client.open()
    end = time.monotonic()
    client.finish(outcomes)
    return outcomes, sum(moment <= end for moment in outcomes.ended) / (end - begun)


def bodies(kind: str) -> list[bytes]:
    """Different questions, as whole HTTP requests."""
    if kind == "small":
        asked = [{"base64Image": q.base64_image, "prompt": q.prompt} for q in questions(256, 7)]
    else:
        pictures = [b64(photograph(4000, 3000, seed)) for seed in range(8)]
        asked = [
            {"base64Image": pictures[n % len(pictures)], "prompt": f"How many circles are there? ({n})"}
            for n in range(64)
        ]
    return [_request(json.dumps(fields).encode()) for fields in asked]


def _request(body: bytes) -> bytes:
    head = "POST /process HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def endlessly(requests: list[bytes]) -> Iterator[bytes]:
    while True:
        yield from requests


def measure(kind: str, times: float, seconds: float, rounds: int) -> dict[str, float]:
    """Serves the embedded model and loads it; medians of answers a second, milliseconds and megabytes."""
    port, requests = free_port(), endlessly(bodies(kind))
    command = [str(Path(sys.executable).parent / "bentoml"), "serve", "service:Sa2VA", "--port", str(port)]
    with running(command, port):
        capacity(port, requests, 5)
        worker = _worker(port)
        found = [_round(port, requests, worker, times, seconds) for _ in range(rounds)]
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def _round(
    port: int, requests: Iterator[bytes], worker: psutil.Process, times: float, seconds: float
) -> dict[str, float]:
    able = capacity(port, requests, min(20, seconds))
    before = worker.memory_info().rss
    outcomes, goodput = overload(port, requests, times * able, seconds)
    time.sleep(5)
    return {
        "capacity_per_s": able,
        "arrivals": times * able * seconds,
        "goodput_per_s": goodput,
        "goodput_of_capacity": goodput / able,
        "accepted_p50_ms": 1e3 * outcomes.quantile(200, 0.5),
        "accepted_p99_ms": 1e3 * outcomes.quantile(200, 0.99),
        "refused": outcomes.count(503),
        "refused_p50_ms": 1e3 * outcomes.quantile(503, 0.5),
        "refused_p99_ms": 1e3 * outcomes.quantile(503, 0.99),
        "other_statuses": sum(len(found) for status, found in outcomes.seconds.items() if status not in (200, 503)),
        "unreadable": outcomes.unreadable,
        "memory_before_mb": before / 2**20,
        "memory_grown_mb": (worker.memory_info().rss - before) / 2**20,
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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", choices=["small", "12mp"], default="small")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    figures = measure(arguments.pictures, arguments.times, arguments.seconds, arguments.rounds)
    print(f"{platform.machine()}, {psutil.cpu_count()} cores, {arguments.pictures} pictures, {arguments.times:g} times")
    for name, value in figures.items():
        print(f"{name:<24}{value:>12.2f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

"""A real service in processes of its own, and an observer of how it bears what is done to it."""

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from PIL import Image, ImageDraw

from tests.pictures import b64, encode

ROOT = Path(__file__).parents[2]
BENTOML = Path(sys.executable).parent / "bentoml"
STRICT = bool(os.environ.get("HOSTILE_STRICT"))
"""On a quiet machine: the figures that are wanted, not only those that a busy machine reaches too."""
LIVEZ_S = 0.2 if STRICT else 3.0
"""Most seconds of `/livez` at the 99th percentile while something hostile goes on."""
MEMORY = (100 if STRICT else 250) * 2**20
"""Most bytes that are left behind."""


@dataclass(frozen=True)
class Server:
    """A running service: its URL, the process that answers, and its folder for temporary files."""

    url: str
    worker: psutil.Process
    temporary: Path

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    @property
    def memory(self) -> int:
        return int(self.worker.memory_info().rss)

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.create_connection(self.address, timeout=30) as connection:
            yield connection


@contextlib.contextmanager
def serving(**environment: str) -> Iterator[Server]:
    """`bentoml serve` with the embedded model on a free port; it is stopped with the block."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        temporary = Path(home) / "temporary"
        temporary.mkdir()
        settings = {
            "BENTOML_HOME": home,
            "TMPDIR": str(temporary),
            "BENTOML_DO_NOT_TRACK": "True",
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        command = [str(BENTOML), "serve", "service:Sa2VA", "--port", str(port)]
        with open(Path(home) / "log", "wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process)
            yield Server(url, _worker_of(process.pid), temporary)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()
            process.wait()


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert process.poll() is None, "the service has ended"
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError("the service did not become ready")


def _worker_of(supervisor: int) -> psutil.Process:
    """The child that has the model: the one with the most memory."""
    return max(psutil.Process(supervisor).children(recursive=True), key=lambda child: child.memory_info().rss)


def question() -> dict[str, str]:
    """What a good client asks."""
    picture = Image.new("RGB", (96, 96), "gray")
    ImageDraw.Draw(picture).ellipse((20, 20, 70, 70), fill="red")
    return {"base64Image": b64(encode(picture)), "prompt": "What color is the circle?"}


@dataclass
class Observer:
    """Asks `/livez` all the time, and good questions; notes how that went."""

    server: Server
    livez_s: list[float] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def watch(self, interval_s: float, path: str) -> None:
        with httpx.Client(base_url=self.server.url, timeout=60) as client:
            while not self._stop.wait(interval_s):
                begun = time.monotonic()
                if path == "/livez":
                    assert client.get(path).status_code == 200
                    self.livez_s.append(time.monotonic() - begun)
                else:
                    self.answers.append(client.post(path, json=question()).status_code)

    @property
    def livez_p99_s(self) -> float:
        return statistics.quantiles(self.livez_s, n=100)[-1] if len(self.livez_s) > 1 else max(self.livez_s)


@contextlib.contextmanager
def observed(server: Server, *, may_refuse: bool = False) -> Iterator[Observer]:
    """While the block is hostile, the service must live, answer good questions, and be as before afterwards.

    `may_refuse`: good questions may be refused with 503 where the block takes all the places there are.
    """
    assert httpx.post(f"{server.url}/process", json=question(), timeout=60).status_code == 200
    before, observer = server.memory, Observer(server)
    watchers = [
        threading.Thread(target=observer.watch, args=(0.02, "/livez")),
        threading.Thread(target=observer.watch, args=(0.1, "/process")),
    ]
    for watcher in watchers:
        watcher.start()
    try:
        yield observer
        time.sleep(0.5)
    finally:
        observer._stop.set()
        for watcher in watchers:
            watcher.join()
    assert observer.livez_p99_s <= LIVEZ_S, f"/livez took {observer.livez_p99_s:.2f} s at p99"
    assert set(observer.answers) <= ({200, 503} if may_refuse else {200}), observer.answers
    assert httpx.post(f"{server.url}/process", json=question(), timeout=60).status_code == 200
    _wait_for_memory(server, before + MEMORY)


def _wait_for_memory(server: Server, limit: int) -> None:
    deadline = time.monotonic() + 30
    while server.memory > limit:
        assert time.monotonic() < deadline, f"{(server.memory - limit) / 2**20:.0f} MB too much left behind"
        time.sleep(0.2)

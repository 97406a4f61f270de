"""Two replicas behind nginx, under load, while one after the other is replaced and at last one is killed.

    python -m benchmarks.rolling [--seconds 120] [--users 8]

A replacement is what an orchestrator does: SIGTERM, the wait for its end, a new process, the wait until it is ready.
Then the other. What becomes of every request is counted; none may be lost. In the second half, a replica is killed
without warning (SIGKILL to its supervisor and its worker), and comes back. Needs `nginx`.
"""

import argparse
import collections
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.compare import free_port
from benchmarks.proxy import nginx
from tests.pictures import PICTURE

ROOT = Path(__file__).parent.parent
BODY = {"base64Image": PICTURE, "prompt": "Please segment the circle.", "max_new_tokens": 64}


class Replica:
    """A service on a port of its own, which can be started again."""

    def __init__(self, folder: Path) -> None:
        self.port, self._home = free_port(), folder
        self.start()

    def start(self) -> None:
        """Returns once it is ready."""
        command = [str(Path(sys.executable).with_name("bentoml")), "serve", "service:Sa2VA", "--port", str(self.port)]
        environment = {**os.environ, "BENTOML_HOME": str(self._home), "BENTOML_DO_NOT_TRACK": "True"}
        environment |= {"SA2VA_API_KEYS": "none", "SA2VA_LOG_LEVEL": "WARNING"}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        for _ in range(1200):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=2).status_code == 200:
                    return
            time.sleep(0.1)
        raise SystemExit("a replica did not become ready")

    def stop(self) -> float:
        """As an orchestrator does. Seconds until it has ended."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(90):
            raise SystemExit(f"a replica ended with {self.process.returncode}")
        return time.monotonic() - begun

    def kill(self) -> None:
        """Without warning."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for process in family:
            process.kill()
        self.process.wait()


@dataclass
class Users:
    """People who ask, one question after the other, and what became of the questions."""

    url: str
    patient: bool = False
    """Whether they ask again when they hear 502 or 503."""
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    seconds: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, count: int) -> None:
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=90) as client:
            while not self._stop.is_set():
                begun = time.monotonic()
                outcome = self._post(client)
                while self.patient and outcome in ("502", "503") and time.monotonic() < begun + 60:
                    time.sleep(0.2)
                    outcome = self._post(client)
                self.outcomes[outcome] += 1
                self.seconds.append(time.monotonic() - begun)

    def _post(self, client: httpx.Client) -> str:
        try:
            return str(client.post("/process", json=BODY).status_code)
        except httpx.TransportError as error:
            return type(error).__name__

    def report(self, what: str) -> None:
        seconds = sorted(self.seconds)
        p99 = seconds[int(0.99 * len(seconds))]
        print(f"{what}: {dict(self.outcomes)}, p99 {1e3 * p99:.0f} ms, slowest {1e3 * seconds[-1]:.0f} ms", flush=True)


def replace_both(replicas: list[Replica], until: float) -> int:
    """One after the other, until the time is over. How often."""
    times = 0
    while time.monotonic() < until:
        replica = replicas[times % len(replicas)]
        print(f"  replica {times % len(replicas) + 1} stopped in {replica.stop():.1f} s", flush=True)
        replica.start()
        times += 1
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--users", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        replicas = [Replica(Path(folder) / name) for name in ("one", "two")]
        try:
            ports = [replica.port for replica in replicas]
            with nginx(ports, retries=True) as url:
                users = Users(url)
                users.run(options.users)
                times = replace_both(replicas, time.monotonic() + options.seconds)
                users.stop()
                users.report(f"{times} replacements in {options.seconds:.0f} s")
                kill_one(url, replicas[0], options.users, "a replica killed, nginx asks the other one")
            with nginx(ports, retries=False) as url:
                kill_one(url, replicas[1], options.users, "a replica killed, nginx repeats nothing")
                kill_one(url, replicas[0], options.users, "the same, but users ask again", patient=True)
        finally:
            for replica in replicas:
                replica.stop()


def kill_one(url: str, replica: Replica, count: int, what: str, patient: bool = False) -> None:
    users = Users(url, patient)
    users.run(count)
    time.sleep(5)
    replica.kill()
    time.sleep(3)
    replica.start()
    time.sleep(5)
    users.stop()
    users.report(what)


if __name__ == "__main__":
    main()

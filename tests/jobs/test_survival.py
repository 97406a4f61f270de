"""kill -9 at any moment: no accepted job is lost, and nothing that was finished changes."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests import films

ROOT = Path(__file__).parent.parent.parent
KILLS = int(os.environ.get("HOSTILE_KILLS", "3"))
FRAMES = 8


@contextmanager
def service(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A service of its own process; it is killed with the block."""
    port_file = folder / "url"
    port_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.jobs.survivor", str(port_file), str(folder / "jobs")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not port_file.exists() or not (url := port_file.read_text()):
            assert process.poll() is None, "the service did not start"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with httpx.Client(base_url=url, timeout=30) as client:
            yield process, client
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return films.film(tmp_path_factory.mktemp("films") / "a.mp4", films.frames(FRAMES)).read_bytes()


def test_nothing_is_lost_and_nothing_finished_changes(film: bytes, tmp_path: Path) -> None:
    rng = random.Random(KILLS)
    accepted: set[str] = set()
    finished: dict[str, bytes] = {}
    for _ in range(KILLS):
        with service(tmp_path) as (_process, client):
            until = time.monotonic() + rng.uniform(0.05, 1.5)
            for _job in range(2):
                _submit(client, film, accepted)
            while time.monotonic() < until:
                _collect(client, accepted, finished)
    with service(tmp_path) as (_process, client):
        deadline = time.monotonic() + 60 + 5 * len(accepted)
        while len(finished) < len(accepted):
            assert time.monotonic() < deadline, f"{len(finished)} of {len(accepted)}"
            _collect(client, accepted, finished)
            time.sleep(0.1)
        for job, result in finished.items():
            assert client.get(f"/jobs/{job}/result").content == result
        assert len(accepted) > KILLS
        assert all(result.count(b'"frame_index"') == FRAMES for result in finished.values())


def _submit(client: httpx.Client, film: bytes, accepted: set[str]) -> None:
    fields = {"prompt": "Segment it."}
    accepted.add(client.post("/process_video", files={"video": film}, data=fields).json()["id"])


def _collect(client: httpx.Client, accepted: set[str], finished: dict[str, bytes]) -> None:
    for job in accepted - finished.keys():
        if client.get(f"/jobs/{job}").json()["state"] == "done":
            finished[job] = client.get(f"/jobs/{job}/result").content

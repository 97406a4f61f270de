"""Several workers: each has its own GPU or share of the processors; one that dies is replaced, and nobody notices who
was not being answered by it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import httpx
import psutil
import pytest

from sa2va_bento.settings import Settings
from sa2va_bento.web import workers
from tests.pictures import PICTURE
from tests.serving import ROOT, wait_until_ready

BODY = {"base64Image": PICTURE, "prompt": "What color is the circle?", "max_new_tokens": 8}
USERS = 6


def settings_of(index: int | None, gpus: int, **given: object) -> Settings:
    settings = Settings.model_validate(given)
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus)))}
    with mock.patch.dict(os.environ, visible), mock.patch.object(workers.server_context, "worker_index", index):
        return workers.for_this_worker(settings)


@pytest.mark.parametrize(
    ("gpus", "given", "count"),
    [(0, {}, 1), (4, {}, 1), (4, {"workers": "auto"}, 4), (0, {"workers": "auto"}, 1), (0, {"workers": 2}, 2)],
)
def test_how_many_there_are(gpus: int, given: dict[str, object], count: int) -> None:
    with mock.patch.dict(os.environ, {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus)))}):
        assert workers.worker_count(Settings.model_validate(given)) == count


def test_each_has_a_gpu_of_its_own() -> None:
    devices = [settings_of(index, 3, workers="auto").device for index in (1, 2, 3)]
    assert devices == ["cuda:0", "cuda:1", "cuda:2"]
    assert settings_of(2, 3).device == "auto"  # one worker
    assert settings_of(2, 2, workers=2, device="cuda:1").device == "cuda:1"  # as the operator says


def test_on_a_cpu_they_share_the_processors() -> None:
    with mock.patch.object(os, "sched_getaffinity", return_value=set(range(16))):
        assert settings_of(1, 0, workers=2).threads == 4
        assert settings_of(1, 0, workers=2, threads=7).threads == 7


def test_one_model_over_all_gpus_is_one_worker() -> None:
    with pytest.raises(SystemExit, match="SA2VA_DEVICE=all"):
        settings_of(1, 2, workers=2, device="all")
    assert settings_of(1, 2, device="all").device == "all"


@pytest.mark.parametrize(("count", "left"), [(1, {"BENTOML_CONTAINERIZED"}), (2, set[str]())])
def test_workers_see_every_gpu_and_several_are_replaced_in_a_container_too(count: int, left: set[str]) -> None:
    with mock.patch.dict(os.environ, {"BENTOML_CONTAINERIZED": "true"}, clear=True):
        workers.share_gpus(count)
        assert set(os.environ) == {"BENTOML_DISABLE_GPU_ALLOCATION"} | left


@dataclass
class Service:
    url: str
    supervisor: subprocess.Popen[bytes]
    log: Path

    @property
    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.supervisor.pid).children()
        return [child for child in children if "_bentoml_impl.worker.service" in child.cmdline()]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_CONTAINERIZED": "true",
        "SA2VA_JOBS_DIR": str(tmp_path / "jobs"),
        "SA2VA_API_KEYS": "none",
        "SA2VA_WORKERS": "2",
    }
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "service:Sa2VA", "--port", str(port)]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until_ready(client, timeout_s=120)
        yield Service(f"http://127.0.0.1:{port}", process, log)
    finally:
        process.kill()
        process.wait()


def _wait(condition: Callable[[], bool], timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _ask(url: str, until: threading.Event) -> Counter[str]:
    """Each request on a connection of its own: any worker may take it."""
    outcomes: Counter[str] = Counter()
    while not until.is_set():
        try:
            outcomes[str(httpx.post(f"{url}/process", json=BODY, timeout=60).status_code)] += 1
        except httpx.TransportError:
            outcomes["lost"] += 1
    return outcomes


def _answered(url: str) -> float:
    """Requests that the workers, added up, have answered."""
    lines = httpx.get(f"{url}/metrics", timeout=10).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("sa2va_requests_total"))


def test_one_that_is_killed_is_replaced_and_the_other_answers(service: Service) -> None:
    _wait(lambda: service.log.read_text().count("is ready after") == 2)
    killed, other = service.workers
    over = threading.Event()
    with ThreadPoolExecutor(USERS) as pool:
        users = [pool.submit(_ask, service.url, over) for _ in range(USERS)]
        time.sleep(2)
        killed.kill()
        _wait(lambda: service.log.read_text().count("is ready after") == 3)
        time.sleep(1)
        over.set()
        outcomes = sum((user.result() for user in users), Counter[str]())
    assert outcomes.keys() <= {"200", "lost"}  # nobody heard that a model is loading
    assert outcomes["lost"] <= USERS
    assert outcomes["200"] > 2 * USERS
    assert _answered(service.url) >= outcomes["200"]
    assert other.pid in {worker.pid for worker in service.workers}
    assert len(service.workers) == 2
    assert "was killed by SIGKILL" in service.log.read_text()
    service.supervisor.send_signal(signal.SIGTERM)
    assert service.supervisor.wait(60) == 0

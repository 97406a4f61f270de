"""How a service stops, and what it does about processes that die, in processes of its own and in the test's."""

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psutil
import pytest
import uvicorn

from sa2va_bento.errors import InferenceError, NotReadyError, PayloadTooLargeError, StartupError
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from sa2va_bento.types import Exchange
from sa2va_bento.web import startup
from sa2va_bento.web.protocol import protocol_of
from sa2va_bento.web.runtime import Runtime, load_predictor
from sa2va_bento.web.shutdown import Server, warn_if_open
from tests.checks import GOOD
from tests.events import read_events
from tests.fakes import FakePredictor, Rendered
from tests.serving import ROOT, asgi_of, load_service, wait_until_ready

HOLD, BREAK, EXHAUST = signal.SIGUSR2, signal.SIGUSR1, signal.SIGHUP
"""What `tests.lifecycle_service` makes of them."""
BENTOML = Path(sys.executable).with_name("bentoml")


def until(condition: Callable[[], Any], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Processes:
    """`bentoml serve` of a service on a free port, stopped with the block."""

    def __init__(self, folder: Path, service: str = "tests.lifecycle_service:Sa2VA", **environment: str) -> None:
        self.folder, self.service, self._environment = folder, service, environment
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.log = folder / f"log-{self.port}"
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def __enter__(self) -> "Processes":
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SA2VA_", "BENTOML_"))}
        settings = {"BENTOML_HOME": str(self.folder / "home"), "BENTOML_DO_NOT_TRACK": "True", **self._environment}
        command = [BENTOML, "serve", self.service, "--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("wb") as log:
            self.supervisor = subprocess.Popen(
                command, cwd=ROOT, env={**clean, **settings}, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        for worker in self.workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        self.supervisor.kill()
        self.supervisor.wait()
        for folder in self.shared:
            shutil.rmtree(folder)

    @property
    def workers(self) -> list[psutil.Process]:
        if self.supervisor.poll() is not None:
            return []
        found = psutil.Process(self.supervisor.pid).children()
        return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]

    @property
    def worker(self) -> psutil.Process:
        (worker,) = self.workers
        return worker

    @property
    def shared(self) -> list[Path]:
        """The folder of its processes, while there is one."""
        return list(Path("/dev/shm").glob(f"sa2va-{self.supervisor.pid}-*"))

    def wait_until_ready(self) -> None:
        until(lambda: self.supervisor.poll() is not None or self.status("/readyz") == 200)
        assert self.supervisor.poll() is None, self.log.read_text()

    def status(self, path: str) -> int:
        try:
            return httpx.get(f"{self.client.base_url}{path}", timeout=60).status_code
        except httpx.TransportError:
            return 0

    def replaced(self, signal_number: int) -> None:
        """Sends a signal to the worker and returns once another one is ready."""
        old = self.worker.pid
        self.worker.send_signal(signal_number)
        until(lambda: [worker.pid for worker in self.workers if worker.pid != old])
        self.wait_until_ready()

    def lines(self) -> list[str]:
        """Ours for the operator."""
        log = self.log.read_text()
        assert "Traceback" not in log
        return [line for line in log.splitlines() if line.startswith("sa2va:")]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """One whose workers may be killed."""
    with Processes(tmp_path_factory.mktemp("service")) as service:
        service.wait_until_ready()
        yield service


def counted(service: Processes) -> list[str]:
    """How often `/process` was answered, as the metrics say."""
    lines = service.client.get("/metrics").text.splitlines()
    return [line for line in lines if line.startswith("sa2va_http_requests_total") and '"/process"' in line]


def test_services_of_one_home_count_for_themselves(service: Processes) -> None:
    assert service.client.post("/process", json=GOOD).status_code == 200
    before = counted(service)
    assert len(before) == 1
    with Processes(service.folder) as other:
        other.wait_until_ready()
        assert (counted(service), counted(other)) == (before, [])
        other.supervisor.terminate()
        assert other.supervisor.wait(60) == 0
        assert other.shared == []
    assert counted(service) == before


@pytest.mark.parametrize(
    ("signal_number", "line"),
    [
        (signal.SIGKILL, "was killed by SIGKILL, perhaps for want of memory"),
        (BREAK, "the engine has stopped: worker process"),
        (EXHAUST, "out of memory: worker process"),
    ],
    ids=["killed", "engine", "memory"],
)
def test_a_worker_that_ends_is_announced_and_replaced(service: Processes, signal_number: int, line: str) -> None:
    before, counts = service.lines(), counted(service)
    service.replaced(signal_number)
    (new,) = service.lines()[len(before) :]
    assert line in new
    assert service.client.post("/process", json=GOOD).status_code == 200
    assert counted(service) != counts  # they go on, and the dead one's stay
    (shared,) = service.shared
    assert {path.name.rpartition("_")[2] for path in shared.glob("gauge_live*")} == {f"{service.worker.pid}.db"}


def test_a_worker_does_not_outlive_its_supervisor(service: Processes) -> None:
    worker, shared = service.worker, service.shared
    worker.send_signal(HOLD)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(httpx.post, f"{service.client.base_url}/process", json=GOOD, timeout=60)
        until(lambda: service.client.get("/health").json()["queue_depth"] == 1)
        service.supervisor.kill()
        service.supervisor.wait()
        until(lambda: service.status("/livez") == 0)  # the port is free
        assert worker.is_running()
        worker.send_signal(HOLD)
        assert running.result().status_code == 200
    until(lambda: not worker.is_running())
    assert not any(path.exists() for path in shared)


def test_a_worker_that_dies_before_it_was_ready_ends_the_service(tmp_path: Path) -> None:
    with Processes(tmp_path, "service:Sa2VA") as service:
        until(lambda: any(list(shared.glob("worker_*")) for shared in service.shared))
        service.worker.kill()
        assert service.supervisor.wait(60) == 1
        (line,) = service.lines()
        assert line.endswith("before it was ready: the service ends")
        assert service.shared == []


def test_in_a_container_the_service_ends_with_its_worker(tmp_path: Path) -> None:
    with Processes(tmp_path, BENTOML_CONTAINERIZED="True") as service:
        service.wait_until_ready()
        service.worker.send_signal(BREAK)
        assert service.supervisor.wait(60) == 1
        assert [line.rpartition(": ")[2] for line in service.lines()][1:] == ["the service ends"]


def test_what_runs_is_finished_and_who_comes_is_sent_away(tmp_path: Path) -> None:
    with Processes(tmp_path) as service, ThreadPoolExecutor(8) as pool:
        service.wait_until_ready()
        service.worker.send_signal(HOLD)
        url = str(service.client.base_url)
        whole = pool.submit(httpx.post, f"{url}/process", json=GOOD, timeout=60)
        stream = pool.submit(httpx.post, f"{url}/process_stream", json=GOOD, timeout=60)
        until(lambda: service.client.get("/health").json()["queue_depth"] == 2)
        service.supervisor.terminate()
        until(lambda: service.status("/readyz") == 503, 5)
        comers = [pool.submit(keep_asking, url) for _ in range(4)]
        known = service.client.post("/process", json=GOOD)  # on a connection that is there
        assert (known.status_code, known.json()["error"]) == (503, "the service is shutting down")
        assert service.status("/livez") == 200
        service.worker.send_signal(HOLD)
        assert whole.result().json()["segments"]
        assert list(read_events(stream.result().text.splitlines()))[-1].name == "done"
        assert service.supervisor.wait(60) == 0
        sent_away = [answer for comer in comers for answer in comer.result()]
        assert sent_away
        assert [(a.status_code, a.headers, a.text) for a in [known, *sent_away] if not is_sent_away(a)] == []
        assert service.lines() == []
        assert service.shared == []


def keep_asking(url: str) -> list[httpx.Response]:
    """What those are answered who come while the service stops; a connection that is cut off would be an error."""
    answers = []
    with contextlib.suppress(httpx.ConnectError):
        while True:
            answers.append(httpx.post(f"{url}/process", json=GOOD, timeout=60))
    return answers


def is_sent_away(answer: httpx.Response) -> bool:
    headers = answer.headers
    return answer.status_code == 503 and headers["retry-after"] == "5" and "close" in headers.get("connection", "")


class Stopping(FakePredictor):
    """One whose requests fail when it is closed, as the engine's do."""

    def close(self) -> None:
        self.failure = NotReadyError("the service is shutting down")
        super().close()


@contextlib.contextmanager
def stoppable(model: FakePredictor, **environment: str) -> Iterator[tuple[str, ModuleType, Callable[[], float]]]:
    """A service in this process: its URL, its module, and what stops it and returns the seconds that took."""
    module = load_service(model, **environment)
    config = uvicorn.Config(asgi_of(module), log_config=None, http=protocol_of(module.settings))
    server = Server(config, module.runtime)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()

        def stop() -> float:
            began = time.monotonic()
            server.should_exit = True
            thread.join()
            return time.monotonic() - began

        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url) as client:
                wait_until_ready(client)
            yield url, module, stop
        finally:
            stop()


def test_the_grace_is_bounded_and_its_end_is_said() -> None:
    model = Stopping()
    model.gate.clear()
    with stoppable(model, SA2VA_GRACE_S="0.3") as (url, module, stop), ThreadPoolExecutor(2) as pool:
        whole = pool.submit(httpx.post, f"{url}/process", json=GOOD, timeout=60)
        model.wait_for_requests(1)
        assert 0.3 <= stop() < 10
        assert (whole.result().status_code, whole.result().json()["error"]) == (503, "the service is shutting down")
        assert not module.runtime.is_ready


def test_readers_that_do_not_read_do_not_hold_it_up() -> None:
    with stoppable(FakePredictor(), SA2VA_GRACE_S="0.3") as (url, _, stop):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            reader.sendall(b"GET /docs.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
            time.sleep(0.2)  # some of them are answered meanwhile
            assert stop() < 10


def test_without_requests_it_stops_at_once() -> None:
    with stoppable(FakePredictor()) as (url, _, stop), httpx.Client(base_url=url) as idle:
        assert idle.get("/readyz").status_code == 200
        assert stop() < 5


@pytest.mark.parametrize(("host", "warns"), [("127.0.0.1", False), ("0.0.0.0", True), ("::1", False), ("::", True)])
def test_a_service_that_is_open_to_others_says_so(host: str, warns: bool, caplog: pytest.LogCaptureFixture) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener, caplog.at_level(logging.WARNING):
        listener.bind((host, 0))
        warn_if_open([listener])
    assert ("without keys" in caplog.text) == warns


def trial(monkeypatch: pytest.MonkeyPatch, model: FakePredictor) -> Any:
    monkeypatch.setattr(Predictor, "load", lambda _: model)
    return load_predictor(Settings())


def test_a_model_must_answer_before_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakePredictor()
    assert trial(monkeypatch, model) is model
    assert [(request.prompt, request.max_new_tokens) for request in model.requests] == [
        ("Please segment everything.", 2)
    ]
    assert not model.closed


def test_a_model_that_fails_to_answer_can_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakePredictor()
    model.failure = InferenceError("the request failed")
    with pytest.raises(StartupError, match="fails to answer: the request failed"):
        trial(monkeypatch, model)
    assert model.closed


def test_a_model_whose_context_holds_no_picture_is_asked_without(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(FakePredictor):
        def _rendered(self, exchange: Exchange[Rendered], future: "Future[Rendered]") -> Rendered:
            if exchange.read().image:
                raise PayloadTooLargeError("the prompt is too long")
            return super()._rendered(exchange, future)

    model = Short()
    assert trial(monkeypatch, model) is model
    assert [request.image for request in model.requests] == [None]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Runtime, FakePredictor, list[str]]]:
    """A runtime under a supervisor that is none, its model, and why it would have ended the process."""
    reasons: list[str] = []
    monkeypatch.setattr(Runtime, "WATCH_S", 0.01)
    monkeypatch.setattr(startup, "has_supervisor", lambda: True)
    monkeypatch.setattr(startup, "is_orphan", lambda: False)
    monkeypatch.setattr(startup, "note_ready", lambda: None)
    monkeypatch.setattr(startup, "stop_this_process", reasons.append)
    monkeypatch.setattr(startup, "end_this_process", lambda within_s: reasons.append(f"within {within_s:g} s"))
    model = FakePredictor()
    runtime = Runtime(Settings(timeout_s=7), lambda _: model)
    runtime.start()
    until(lambda: runtime.is_ready)
    yield runtime, model, reasons
    runtime.drain()


def test_a_process_whose_engine_has_ended_stops(watched: tuple[Runtime, FakePredictor, list[str]]) -> None:
    _, model, reasons = watched
    model.is_alive = False
    until(lambda: len(reasons) == 2)
    assert reasons == ["the engine has stopped", "within 25 s"]


def test_a_process_without_memory_stops(watched: tuple[Runtime, FakePredictor, list[str]]) -> None:
    runtime, _, reasons = watched
    runtime.out_of_memory()
    runtime.out_of_memory()
    until(lambda: len(reasons) == 2)
    assert reasons == ["out of memory", "within 25 s"]


def test_an_orphan_stops(watched: tuple[Runtime, FakePredictor, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "is_orphan", lambda: True)
    until(lambda: len(watched[2]) == 2)
    assert watched[2] == ["the supervisor has gone", "within 27 s"]


def test_a_process_that_was_told_to_stop_does(watched: tuple[Runtime, FakePredictor, list[str]]) -> None:
    runtime, model, reasons = watched
    runtime.drain()
    assert not runtime.is_ready
    with pytest.raises(NotReadyError, match="shutting down"):
        _ = runtime.model
    until(lambda: len(reasons) == 1)
    model.is_alive = False
    assert reasons == ["within 27 s"]


def test_nothing_ends_a_process_without_a_supervisor() -> None:
    runtime = Runtime(Settings(), lambda _: FakePredictor())
    runtime.start()
    until(lambda: runtime.is_ready)
    runtime.out_of_memory()
    assert "sa2va-watch" not in {thread.name for thread in threading.enumerate()}
    runtime.close()

"""The service while its model loads, works, is full, is late, or fails; and how requests under way end."""

import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from sa2va_bento.errors import CheckpointError, NotReadyError
from sa2va_bento.settings import Settings
from sa2va_bento.web import process
from sa2va_bento.web.runtime import Runtime
from tests.checks import eventually
from tests.fakes import FakePredictor
from tests.pictures import PICTURE
from tests.serving import asgi_of, client_of, load_service, server_of, wait_until_ready

GOOD: dict[str, Any] = {"base64Image": PICTURE, "prompt": "Please segment it."}


def test_while_the_model_loads_it_is_alive_but_not_ready() -> None:
    with client_of(None) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/").status_code == 200
        for response in (client.get("/readyz"), client.get("/health"), client.post("/health"), post(client)):
            assert response.status_code == 503
            assert isinstance(response.json()["error"], str)
            assert int(response.headers["retry-after"]) >= 1
        health = client.get("/health").json()
        assert (health["status"], health["message"]) == ("error", "the model is still loading")


def test_a_model_that_can_not_be_loaded_ends_liveness(capsys: pytest.CaptureFixture[str]) -> None:
    def load(_: object) -> FakePredictor:
        raise CheckpointError("the folder lacks config.json")

    module = load_service(None)
    module.runtime.load = load
    with TestClient(asgi_of(module)) as client:
        eventually(lambda: client.get("/livez").status_code == 503)
        assert client.get("/readyz").status_code == 503
        assert client.get("/health").json()["message"] == "the model could not be loaded"
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("INFO:sa2va_bento.access")]
    assert said == ["sa2va: the folder lacks config.json"]


def test_a_dead_model_thread_ends_liveness() -> None:
    model = FakePredictor()
    with client_of(model) as client:
        model.is_ready = model.is_alive = False
        assert client.get("/livez").status_code == 503
        assert client.get("/readyz").status_code == 503
        answer = post(client)
        assert answer.status_code == 503
        assert answer.json()["error"] == "the model has stopped"


def test_the_model_is_closed_with_the_service() -> None:
    model = FakePredictor()
    with client_of(model):
        assert not model.closed
    assert model.closed


def post(client: httpx.Client | TestClient) -> Any:
    return client.post("/process", json=GOOD)


def post_apart(pool: ThreadPoolExecutor, url: str) -> "Future[httpx.Response]":
    return pool.submit(lambda: httpx.post(f"{url}/process", json=GOOD, timeout=20))


def test_probes_stay_fast_while_the_model_works() -> None:
    model = FakePredictor()
    with server_of(model) as url, ThreadPoolExecutor(8) as pool, httpx.Client(base_url=url) as client:
        model.gate.clear()
        answers = [post_apart(pool, url) for _ in range(8)]
        model.wait_for_requests(8)
        for path in ("/livez", "/readyz", "/health"):
            started = time.monotonic()
            assert client.get(path).status_code == 200
            assert time.monotonic() - started < 1
        assert client.get("/health").json()["queue_depth"] == 8
        model.gate.set()
        assert [answer.result().status_code for answer in answers] == [200] * 8


def test_decoding_a_large_picture_does_not_block_the_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    original = process.to_predict_request
    decoding = threading.Event()

    def slow(*arguments: Any) -> Any:
        decoding.set()
        time.sleep(1.5)
        return original(*arguments)

    monkeypatch.setattr(process, "to_predict_request", slow)
    with server_of(FakePredictor()) as url, ThreadPoolExecutor(1) as pool:
        answer = post_apart(pool, url)
        assert decoding.wait(10)
        started = time.monotonic()
        assert httpx.get(f"{url}/livez").status_code == 200
        assert time.monotonic() - started < 1
        assert not answer.done()
        assert answer.result().status_code == 200


def test_a_full_queue_answers_at_once_and_recovers() -> None:
    model = FakePredictor(capacity=2)
    with server_of(model) as url, ThreadPoolExecutor(2) as pool, httpx.Client(base_url=url) as client:
        model.gate.clear()
        waiting = [post_apart(pool, url) for _ in range(2)]
        model.wait_for_requests(2)
        started = time.monotonic()
        refused = post(client)
        assert time.monotonic() - started < 1
        assert refused.status_code == 503
        assert refused.json()["error"] == "the queue is full"
        assert int(refused.headers["retry-after"]) >= 1
        model.gate.set()
        assert [answer.result().status_code for answer in waiting] == [200, 200]
        assert post(client).status_code == 200


def test_bodies_have_a_budget_of_memory() -> None:
    model = FakePredictor()
    large = {**GOOD, "prompt": "x" * 400_000}
    with (
        server_of(model, SA2VA_MAX_QUEUE_MB="1", SA2VA_MAX_PROMPT_TOKENS="100000") as url,
        ThreadPoolExecutor(3) as pool,
    ):
        model.gate.clear()
        waiting = [pool.submit(lambda: httpx.post(f"{url}/process", json=large, timeout=20)) for _ in range(2)]
        model.wait_for_requests(2)
        refused = httpx.post(f"{url}/process", json=large)
        assert refused.status_code == 503
        assert "take all memory" in refused.json()["error"]
        assert httpx.get(f"{url}/livez").status_code == 200
        model.gate.set()
        assert [answer.result().status_code for answer in waiting] == [200] * 2
        assert httpx.post(f"{url}/process", json=large).status_code == 200


def test_a_full_house_refuses_at_the_gate_and_says_who_asked() -> None:
    model = FakePredictor(capacity=0)
    with server_of(model) as url, httpx.Client(base_url=url) as client:
        headers = {"X-Request-ID": "mine-7", "Origin": "http://page.example"}
        refused = client.post("/process", json=GOOD, headers=headers)
        assert (refused.status_code, refused.headers["x-request-id"]) == (503, "mine-7")
        assert refused.json() == {"error": "the queue is full", "request_id": "mine-7"}
        assert refused.headers["access-control-allow-origin"] == "*"
        assert int(refused.headers["retry-after"]) >= 1
        chat = client.post("/v1/chat/completions", json={"messages": []})
        assert (chat.status_code, chat.json()["error"]["type"]) == (503, "server_error")


def test_past_the_deadline_504_and_the_model_is_told() -> None:
    model = FakePredictor()
    with client_of(model, SA2VA_TIMEOUT_S="0.3") as client:
        model.gate.clear()
        started = time.monotonic()
        late = post(client)
        assert late.status_code == 504
        assert late.json()["error"] == "no answer within 0.3 s"
        assert 0.2 < time.monotonic() - started < 3
        eventually(lambda: model.cancelled == 1)
        model.gate.set()
        assert post(client).status_code == 200


def test_a_body_that_trickles_in_meets_the_deadline_too() -> None:
    model = FakePredictor()

    def trickle() -> Iterator[bytes]:
        for _ in range(30):
            time.sleep(0.05)
            yield b" "

    with server_of(model, SA2VA_TIMEOUT_S="0.3") as url:
        response = httpx.post(f"{url}/process", content=trickle(), headers={"Content-Type": "application/json"})
        assert response.status_code == 504
        assert httpx.post(f"{url}/process", json=GOOD).status_code == 200
    assert len(model.requests) == 1


def test_a_client_that_leaves_frees_the_model() -> None:
    model = FakePredictor()
    with server_of(model) as url:
        model.gate.clear()
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/process", json=GOOD, timeout=0.3)
        model.wait_for_requests(1)
        eventually(lambda: model.cancelled == 1)
        assert model.queue_depth == 0
        model.gate.set()
        assert httpx.post(f"{url}/process", json=GOOD).status_code == 200


def test_errors_of_the_model_keep_their_status() -> None:
    model = FakePredictor()
    model.failure = NotReadyError("the engine has stopped")
    with client_of(model) as client:
        response = post(client)
    assert response.status_code == 503
    assert response.json()["error"] == "the engine has stopped"
    assert response.headers["retry-after"] == "5"


def test_many_at_once_all_get_their_own_answer() -> None:
    model = FakePredictor()
    with server_of(model) as url, ThreadPoolExecutor(16) as pool:
        bodies = [{**GOOD, "prompt": f"question {i}"} for i in range(64)]
        answers = pool.map(lambda body: httpx.post(f"{url}/process", json=body, timeout=20).json(), bodies)
        assert [answer["result"] for answer in answers] == [f"You asked: question {i}" for i in range(64)]


def test_a_service_can_start_again_in_the_same_process() -> None:
    for _ in range(2):
        with client_of(FakePredictor()) as client:
            wait_until_ready(client)
            assert post(client).status_code == 200


def test_garbage_is_collected_again_once_the_model_is_there() -> None:
    while_loading: list[bool] = []

    def load(settings: Settings) -> FakePredictor:
        while_loading.append(gc.isenabled())
        return FakePredictor()

    runtime = Runtime(Settings(), load)
    runtime.start()
    deadline = time.monotonic() + 10
    while not runtime.is_ready and time.monotonic() < deadline:
        time.sleep(0.01)
    assert runtime.is_ready
    assert while_loading == [False]
    assert gc.isenabled()
    runtime.close()


def test_a_plain_refusal_has_all_that_a_refusal_has() -> None:
    model = FakePredictor(capacity=0)
    with server_of(model) as url, httpx.Client(base_url=url) as client:
        plain = client.post("/process", json=GOOD, headers={"X-Request-ID": "mine-8"})
        layered = client.post("/process", json=GOOD, headers={"X-Request-ID": "mine-8", "Origin": "http://a.example"})
        assert plain.status_code == layered.status_code == 503
        assert plain.json() == layered.json() == {"error": "the queue is full", "request_id": "mine-8"}
        for name in ("retry-after", "x-request-id", "content-type"):
            assert plain.headers[name] == layered.headers[name]
        large = client.post("/process", content=bytes(8 * 2**20), headers={"Content-Type": "application/json"})
        assert large.status_code == 503
        model.capacity = 8
        assert client.post("/process", json=GOOD).status_code == 200

"""`POST /process_stream`: what comes, in which order and when, and how streams end that do not end well."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from sa2va_bento.errors import NotReadyError
from sa2va_bento.web import process, rendering
from tests.checks import eventually
from tests.events import Event, read_events
from tests.fakes import FakePredictor
from tests.pictures import PICTURE, encode, quarters
from tests.serving import client_of, server_of

GOOD: dict[str, Any] = {"base64Image": PICTURE, "prompt": "Please segment it."}
PATH = "/process_stream"


@contextmanager
def streaming(url: str, body: Any = GOOD) -> Iterator[Iterator[Event]]:
    """The events of a stream; leaving the block hangs up."""
    with httpx.Client(base_url=url, timeout=20) as client, client.stream("POST", PATH, json=body) as response:
        assert response.status_code == 200
        yield read_events(response.iter_lines())


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakePredictor, str]]:
    model = FakePredictor()
    with server_of(model) as url:
        yield model, url


def test_a_stream_in_full(client: TestClient) -> None:
    response = client.post(PATH, json=GOOD, headers={"X-Request-ID": "mine-2", "Origin": "http://page.example"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-request-id"] == "mine-2"
    assert response.headers["access-control-allow-origin"] == "*"
    assert "content-length" not in response.headers
    start, *tokens, segment, done = read_events(response.text.split("\n"))
    assert (start.name, start.data) == ("start", {"request_id": "mine-2", "model": "sa2va-nano"})
    assert {token.name for token in tokens} == {"token"}
    assert "".join(token.data["text"] for token in tokens) == "Sure, <p> the left half </p> [SEG]."
    whole = client.post("/process", json=GOOD, headers={"X-Request-ID": "mine-2"}).json()
    assert (segment.name, segment.data) == ("segment", whole["segments"][0])
    assert (done.name, done.data | {"timings_ms": 0}) == ("done", whole | {"timings_ms": 0})
    assert done.data["timings_ms"].keys() == whole["timings_ms"].keys()


@pytest.mark.parametrize("mask_format", ["png", "polygon", "none"])
def test_the_fields_of_process_count(client: TestClient, mask_format: str) -> None:
    body = {**GOOD, "mask_format": mask_format, "include_overlay": True, "max_token": 1}
    *_, segment, done = read_events(client.post(PATH, json=body).text.split("\n"))
    assert (segment.data["mask"] or {"format": "none"})["format"] == mask_format
    assert done.data["segments"] == [segment.data]
    assert done.data["overlay"].startswith("data:image/png;base64,")
    assert done.data["warnings"] == ["unknown field ignored: 'max_token'"]


def test_an_upload_is_streamed_too(client: TestClient) -> None:
    form = {"data": {"prompt": "segment"}, "files": {"image": encode(quarters())}}
    names = [event.name for event in read_events(client.post(PATH, **form).text.split("\n"))]
    assert (names[0], names[-2:]) == ("start", ["segment", "done"])


def test_characters_that_end_lines_elsewhere_stay_within_theirs(client: TestClient) -> None:
    prompt = "a\u2028b\u2029c\x85d\re\nf"
    *tokens, done = read_events(client.post(PATH, json={**GOOD, "prompt": prompt}).text.splitlines())
    assert done.data["text"] == f"You asked: {prompt}"
    assert "".join(token.data["text"] for token in tokens[1:]) == done.data["result"]


def test_every_event_is_sent_when_it_happens(served: tuple[FakePredictor, str]) -> None:
    model, url = served
    model.gate.clear()
    model.rest.clear()
    with streaming(url) as events:
        assert next(events).name == "start"  # the model has said nothing yet
        model.gate.set()
        first = next(events)
        assert (first.name, first.data) == ("token", {"text": "Sure,"})
        assert first.at - model.told_at[-1] < 0.5
        model.rest.set()
        assert [event.name for event in events][-2:] == ["segment", "done"]


def test_many_streams_at_once_are_each_their_own(served: tuple[FakePredictor, str]) -> None:
    _, url = served

    def text_of(prompt: str) -> str:
        with streaming(url, {**GOOD, "prompt": prompt}) as events:
            return "".join(event.data["text"] for event in events if event.name == "token")

    prompts = [f"question {number}" for number in range(48)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(text_of, prompts)) == [f"You asked: {prompt}" for prompt in prompts]


@pytest.mark.parametrize("begun", [False, True], ids=["before the first word", "amid the answer"])
def test_a_client_that_leaves_frees_the_model_at_once(served: tuple[FakePredictor, str], begun: bool) -> None:
    model, url = served
    before = model.cancelled
    (model.rest if begun else model.gate).clear()
    with streaming(url) as events:
        assert [event.name for event in itertools.islice(events, 1 + begun)] == ["start", "token"][: 1 + begun]
        assert model.queue_depth == 1
    left = time.monotonic()
    eventually(lambda: model.cancelled == before + 1)
    assert time.monotonic() - left < 1  # heartbeats are 5 s apart: nobody waited for one to fail
    assert model.queue_depth == 0
    model.gate.set()
    model.rest.set()
    assert httpx.post(f"{url}/process", json=GOOD).status_code == 200


def test_silence_is_filled_with_heartbeats() -> None:
    model = FakePredictor()
    with server_of(model, SA2VA_HEARTBEAT_S="0.05") as url:
        model.gate.clear()
        with streaming(url) as events:
            assert [event.name for event in itertools.islice(events, 4)] == ["start", "", "", ""]
            model.gate.set()
            assert [event.name for event in events][-1] == "done"


def test_past_the_deadline_comes_an_error_and_the_model_is_told() -> None:
    model = FakePredictor()
    with client_of(model, SA2VA_TIMEOUT_S="0.3") as client:
        model.rest.clear()
        response = client.post(PATH, json=GOOD)
        *_, token, error = read_events(response.text.split("\n"))
        assert (response.status_code, token.name, error.name) == (200, "token", "error")
        request_id = response.headers["x-request-id"]
        assert error.data == {"error": "no answer within 0.3 s", "status": 504, "request_id": request_id}
        eventually(lambda: model.cancelled == 1)


@pytest.mark.parametrize(
    ("failure", "message", "status"),
    [
        (NotReadyError("the engine has stopped"), "the engine has stopped", 503),
        (RuntimeError("secret at /srv/x.py"), "internal error", 500),
    ],
    ids=["ours", "any other"],
)
def test_what_fails_midway_ends_with_an_error(failure: Exception, message: str, status: int) -> None:
    model = FakePredictor()
    model.failure = failure
    with client_of(model) as client:
        text = client.post(PATH, json=GOOD).text
    start, token, error = read_events(text.split("\n"))
    assert [start.name, token.name, error.name] == ["start", "token", "error"]
    assert (error.data["error"], error.data["status"]) == (message, status)
    assert "secret" not in text


@pytest.mark.parametrize(
    ("body", "status", "fragment"),
    [
        ({"prompt": "hi"}, 400, "base64Image: field required"),
        ({**GOOD, "base64Image": "bm90IGFuIGltYWdl"}, 400, "not a picture"),
        ({**GOOD, "prompt": " "}, 400, "prompt: empty"),
        ({**GOOD, "prompt": "word " * 50_000}, 413, "limit of 8192 tokens"),
        ({**GOOD, "mask_format": "bitmap"}, 400, "mask_format"),
    ],
)
def test_what_is_wrong_before_the_stream_is_an_ordinary_error(
    client: TestClient, body: Any, status: int, fragment: str
) -> None:
    response = client.post(PATH, json=body)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    assert fragment in response.json()["error"]


def test_a_full_queue_is_an_ordinary_error() -> None:
    with client_of(FakePredictor(capacity=0)) as client:
        response = client.post(PATH, json=GOOD)
    assert (response.status_code, response.json()["error"]) == (503, "the queue is full")
    assert int(response.headers["retry-after"]) >= 1


def test_while_the_model_loads_there_is_no_stream() -> None:
    with client_of(None) as client:
        assert client.post(PATH, json=GOOD).status_code == 503


def test_a_stream_is_posted(client: TestClient) -> None:
    assert client.get(PATH).status_code == 405
    assert PATH in client.get("/").json()["endpoints"]


def test_pictures_and_masks_are_not_the_event_loops_work(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[str] = set()

    def noted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            threads.add(threading.current_thread().name)
            return original(*arguments)

        return call

    monkeypatch.setattr(process, "to_predict_request", noted(process.to_predict_request))
    monkeypatch.setattr(rendering, "encode_mask", noted(rendering.encode_mask))
    with client_of(FakePredictor()) as client:
        assert "event: done" in client.post(PATH, json=GOOD).text
    assert threads
    assert all(name.startswith("fake-worker") for name in threads)


def test_a_mask_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = rendering.encode_mask
    monkeypatch.setattr(rendering, "encode_mask", lambda *given: calls.append(given[1]) or original(*given))
    with client_of(FakePredictor()) as client:
        assert "event: done" in client.post(PATH, json=GOOD).text
    assert calls == ["rle"]

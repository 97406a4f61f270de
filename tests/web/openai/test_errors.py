"""Errors under `/v1`: their shape, whichever layer they come from, and what OpenAI's own client raises of them."""

import json
from typing import Any

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from sa2va_bento.errors import NotReadyError, PayloadTooLargeError
from sa2va_bento.web.openai.errors import openai_error
from sa2va_bento.web.openai.schemas import ChatRequest
from tests.chats import HELLO, SEGMENT, URL, client_for, image, user
from tests.fakes import FakePredictor
from tests.pictures import PICTURE, b64, bomb
from tests.serving import client_of, server_of

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/embeddings", 404, "not_found"),
        ("POST", "/v1/", 404, "not_found"),
        ("GET", "/v1/chat/completions/x", 404, "not_found"),
    ],
)
def test_unknown_routes(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    message = "there is no such endpoint"
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    assert response.json() == {"error": error}


def test_layers_in_front_of_the_routes() -> None:
    environment = {"SA2VA_API_KEYS": "k", "SA2VA_RATE_LIMIT": "2", "SA2VA_MAX_BODY_MB": "0.01"}
    key = {"Authorization": "Bearer k"}
    with client_of(FakePredictor(), **environment) as client:
        refused = client.get("/v1/x")
        large = client.post("/v1/x", content=b" " * 20_000, headers=JSON | key)
        client.get("/v1/x", headers=key)
        often = client.get("/v1/x", headers=key)
    check(refused, 401, "authentication_error", "invalid_api_key")
    check(large, 413, "invalid_request_error", "request_too_large")
    check(often, 429, "rate_limit_error", "rate_limit_exceeded")
    assert int(often.headers["retry-after"]) >= 1


def check(response: Any, status: int, kind: str, code: str) -> None:
    assert response.status_code == status
    assert response.json().keys() == {"error"}
    assert isinstance(response.json()["error"].pop("message"), str)
    assert response.json()["error"] | {"message": ""} == {"message": "", "type": kind, "param": None, "code": code}


@pytest.mark.parametrize(
    ("status", "message", "param"),
    [
        (400, "messages[0].content: field required", "messages[0].content"),
        (400, "the body is not valid JSON", None),
        (400, "a model: or not", None),
        (500, "stop: this is ours", None),
    ],
)
def test_the_field_at_fault_is_named(status: int, message: str, param: str | None) -> None:
    assert openai_error(status, message)["error"] == {
        "message": message,
        "type": "server_error" if status == 500 else "invalid_request_error",
        "param": param,
        "code": "internal_error" if status == 500 else None,
    }


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("no messages", {"messages": []}, "messages"),
    ("not a data URL", {"messages": [user("a", image(PICTURE))]}, "messages[0].content[1].image_url"),
    ("a file", {"messages": [user("a", image("file:///etc/passwd"))]}, "messages[0].content[1].image_url"),
    ("a URL", {"messages": [user("a", image("http://localhost/a.png"))]}, "messages[0].content[1].image_url"),
    ("not a picture", {"messages": [user("a", image("data:image/png;base64,aGFsbG8="))]},
     "messages[0].content[1].image_url"),
    ("regions without a picture", {"extra_body": {"regions": [{"box": [1, 1, 4, 4]}]}}, "regions"),
    ("a region outside", {"messages": SEGMENT, "extra_body": {"regions": [{"box": [1, 1, 99, 4]}]}}, "regions[0].box"),
    ("too many regions", {"messages": SEGMENT, "extra_body": {"regions": [{"box": [1, 1, 4, 4]}] * 17}}, "regions"),
    ("two answers", {"n": 2}, "n"),
    ("five stops", {"stop": ["a"] * 5}, "stop"),
    ("an empty stop", {"stop": ""}, "stop"),
    ("too hot", {"temperature": 2.1}, "temperature"),
    ("top_p", {"top_p": -0.1}, "top_p"),
    ("half a seed", {"seed": 0.5}, "seed"),
    ("no tokens", {"max_tokens": 0}, "max_tokens"),
    ("mask format", {"extra_body": {"mask_format": "tar"}}, "mask_format"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "param"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
@pytest.mark.parametrize("stream", [False, True])
def test_bad_requests(chat: Any, options: dict[str, Any], param: str, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(**{"messages": HELLO, "stream": stream, **options})
    assert (caught.value.type, caught.value.param, caught.value.code) == ("invalid_request_error", param, None)


def test_an_unknown_model(chat: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        chat(HELLO, model="gpt-4o")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("messages", "status", "code"),
    [
        ([user("a", image(f"data:image/png;base64,{b64(bomb())}"))], 413, "request_too_large"),
        ([{"role": "system", "content": "word " * 50_000}, *HELLO], 400, "context_length_exceeded"),
        ([*HELLO, {"role": "assistant", "content": "word " * 50_000}, *HELLO], 400, "context_length_exceeded"),
    ],
    ids=["picture", "system", "assistant"],
)
def test_what_is_over_a_limit(chat: Any, messages: list[Any], status: int, code: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        chat(messages)
    assert (caught.value.status_code, caught.value.code) == (status, code)


@pytest.mark.parametrize(
    ("failure", "status"),
    [(PayloadTooLargeError("too long"), 413), (NotReadyError("gone"), 503), (RuntimeError("/srv/x.py"), 500)],
)
def test_failures_of_the_model(chat: Any, model: FakePredictor, failure: Exception, status: int) -> None:
    model.failure = failure
    try:
        with pytest.raises(openai.APIStatusError) as caught:
            chat(HELLO)
    finally:
        model.failure = None
    assert caught.value.status_code == status
    assert isinstance(caught.value, openai.InternalServerError) == (status >= 500)
    assert "/srv" not in str(caught.value)


def test_a_stream_that_fails_raises(chat: Any, model: FakePredictor) -> None:
    model.failure = NotReadyError("the engine has stopped")
    try:
        stream = chat(SEGMENT, stream=True)
        assert next(stream).choices[0].delta.role == "assistant"
        with pytest.raises(openai.APIError, match="the engine has stopped"):
            list(stream)
    finally:
        model.failure = None


def test_keys_and_rates() -> None:
    with server_of(FakePredictor(), SA2VA_API_KEYS="right", SA2VA_RATE_LIMIT="1") as url:
        with client_for(url, api_key="wrong") as client, pytest.raises(openai.AuthenticationError) as refused:
            client.models.list()
        assert refused.value.code == "invalid_api_key"
        with client_for(url, api_key="right") as client:
            assert client.models.list().data
            with pytest.raises(openai.RateLimitError) as often:
                client.chat.completions.create(model="sa2va", messages=HELLO)
        assert int(often.value.response.headers["retry-after"]) >= 1


def test_late_and_full() -> None:
    model = FakePredictor(capacity=1)
    with server_of(model, SA2VA_TIMEOUT_S="0.3") as url, client_for(url) as client:
        model.gate.clear()
        with pytest.raises(openai.InternalServerError, match="no answer within") as late:
            client.chat.completions.create(model="sa2va", messages=HELLO)
        assert (late.value.status_code, late.value.code) == (504, "timeout")
        model.capacity = 0
        with pytest.raises(openai.InternalServerError, match="the queue is full") as full:
            client.chat.completions.create(model="sa2va", messages=HELLO)
        assert (full.value.status_code, full.value.code) == (503, "service_unavailable")


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"messages": "hi"}', b'{"messages": [{"role": "user"}]}'])
def test_bodies_that_no_client_sends(client: Any, body: bytes) -> None:
    response = client.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_form_is_no_chat(client: Any) -> None:
    response = client.post("/v1/chat/completions", data={"messages": "x"}, files={"image": b"x"})
    assert response.status_code == 415


NAMES = [*ChatRequest.model_fields, "role", "content", "type", "text", "image_url", "url", "detail", "include_usage"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from([URL, "user"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)
PART = st.sampled_from([image(), user("hi")["content"][0], {"type": "image_url", "image_url": URL}]) | ANYTHING
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]) | ANYTHING, "content": st.lists(PART) | ANYTHING}
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=4), st.lists(MESSAGE, max_size=4))
def test_no_fields_whatever_are_our_failure(client: Any, fields: dict[str, Any], messages: list[Any]) -> None:
    body = json.dumps({**fields, "messages": [*messages, *HELLO]})
    response = client.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 400, 404, 413, 415)
    if response.is_error:
        assert response.json()["error"].keys() == {"message", "type", "param", "code"}

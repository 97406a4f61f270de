"""The shape of errors under `/v1`, whichever layer they come from."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from sa2va_bento.web.openai_errors import openai_error
from tests.fakes import FakePredictor
from tests.serving import client_of

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

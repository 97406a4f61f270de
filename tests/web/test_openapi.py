"""The OpenAPI document says what is true, and the service does what it says, whatever is asked of it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks
from starlette.testclient import TestClient

from sa2va_bento.web.endpoints import ENDPOINTS, listed
from sa2va_bento.web.openapi import build_document
from tests.fakes import FakePredictor
from tests.pictures import PICTURE
from tests.serving import client_of, server_of

DOCUMENT = build_document(ENDPOINTS, keys=False)
API = schemathesis.openapi.from_dict(DOCUMENT)
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example]
CHECKS: list[CheckFunction] = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
    checks.negative_data_rejection,
]


CASES = [
    (path, method, mode)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    for mode in (GenerationMode if "requestBody" in operation else [GenerationMode.POSITIVE])
    if path != "/metrics"  # a process can register its metrics once only: they are off in the tests' services
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server_of(FakePredictor()) as url:
        yield url


# the guard behind it compares the process's random state, which the server's threads, in the same process, may move
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_whatever_is_asked_the_answer_is_documented(url: str, path: str, method: str, mode: GenerationMode) -> None:
    cases = API[path][method].as_strategy(generation_mode=mode)

    @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
    @given(cases, st.booleans())
    def check(case: Case, good: bool) -> None:
        if good:
            make_good(case, mode, url)
        seen.add(case.call_and_validate(base_url=url, checks=CHECKS).status_code)

    seen: set[int] = set()
    check()
    assert bool(seen & {200, 202, 204}) == (mode == GenerationMode.POSITIVE)


def make_good(case: Case, mode: GenerationMode, url: str) -> None:
    """Puts what no generator guesses where it belongs, so that some requests are answered."""
    if case.path.startswith("/jobs/"):
        case.path_parameters, case.query = {"job_id": done_job(url)}, {}
    elif case.path in ("/job", "/job_result", "/cancel_job") and mode == GenerationMode.POSITIVE:
        case.body = {"job_id": done_job(url)}
    elif case.path == "/process_video" and mode == GenerationMode.POSITIVE:
        case.media_type, case.body = "application/json", {"frames": [PICTURE], "prompt": "Segment it.", "wait": 20}
    elif case.path == "/v1/models/{name}":
        case.path_parameters = {"name": "sa2va-nano"}
    elif case.path == "/ui/{name}":
        case.path_parameters = {"name": "js/main.js"}
    elif isinstance(case.body, dict) and case.body.get("base64Image"):
        if isinstance(case.body["base64Image"], str):
            case.body["base64Image"] = PICTURE
        if mode == GenerationMode.POSITIVE:
            case.body["adapter"] = None  # none is served here
    elif isinstance(case.body, dict) and case.body.get("messages") and mode == GenerationMode.POSITIVE:
        case.body = {**case.body, "model": "sa2va", "messages": [{"role": "user", "content": "Hello."}], "regions": []}


def done_job(url: str) -> str:
    asked = {"frames": [PICTURE], "prompt": "Segment it.", "wait": 20}
    return str(httpx.post(f"{url}/process_video", json=asked, timeout=30).json()["id"])


def test_it_is_what_the_service_tells(client: TestClient) -> None:
    served = client.get("/docs.json").json()
    assert served == json.loads(json.dumps(DOCUMENT))
    assert set(listed()) <= set(served["paths"])
    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(served)))
    assert names <= set(SCHEMAS)


@pytest.mark.parametrize("path", [path for path in DOCUMENT["paths"] if path != "/metrics"])
def test_other_methods_are_told_the_documented_ones(client: TestClient, path: str) -> None:
    response = client.options(path)
    assert response.status_code == 405
    assert set(DOCUMENT["paths"][path]) <= set(response.headers["allow"].lower().split(", "))


FIELDS = [
    pytest.param(field, id=f"{name}.{key}")
    for name, schema in SCHEMAS.items()
    for key, field in schema.get("properties", {}).items()
]


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_described_and_shown(field: dict[str, Any]) -> None:
    text = json.dumps(field)
    assert "description" in field or "$ref" in field
    assert any(shown in text for shown in ('"examples"', '"$ref"', '"const"', '"binary"'))


def test_the_example_request_is_answered(client: TestClient) -> None:
    for media_type in ("ProcessRequest", "ProcessForm"):
        fields = SCHEMAS[media_type]["properties"]
        request = {name: field["examples"][0] for name, field in fields.items() if name != "image"}
        assert client.post("/process", json=request).status_code == 200


@pytest.mark.parametrize("status", [400, 401, 413, 415, 429, 500, 503, 504])
@pytest.mark.parametrize("path", ["/process", "/process_stream", "/v1/chat/completions"])
def test_errors_are_documented_with_their_shape(path: str, status: int) -> None:
    response = DOCUMENT["paths"][path]["post"]["responses"][str(status)]
    reference = response["content"]["application/json"]["schema"]["$ref"]
    assert reference.endswith("OpenAIErrorResponse" if path.startswith("/v1") else "/ErrorResponse")
    assert ("Retry-After" in response["headers"]) == (status in (429, 503))


def test_what_asks_for_a_key_says_so() -> None:
    with client_of(FakePredictor(), SA2VA_API_KEYS="a key") as guarded:
        assert guarded.get("/docs.json").status_code == 401
        document = guarded.get("/docs.json", headers={"X-API-Key": "a key"}).json()
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                status = guarded.request(method, path).status_code
                assert (status == 401) == bool(operation["security"]), (method, path)
    assert all("security" not in operation for path in DOCUMENT["paths"].values() for operation in path.values())


def test_the_page_lists_every_endpoint() -> None:
    text = (Path(__file__).parents[2] / "docs/api.md").read_text()
    table = text[text.index("| request | answer |") : text.index("`POST /process` takes JSON")]
    documented = set(re.findall(r"`(GET|POST|DELETE) (\S+)`", table))
    own = {(endpoint.method, endpoint.documented_path) for endpoint in ENDPOINTS}
    assert documented == own - {("POST", "/health"), ("GET", "/healthz"), ("GET", "/v1/models/{name}")}

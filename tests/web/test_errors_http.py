"""Bad input through HTTP: its status, one JSON object with `error`, and a service that goes on as before."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from sa2va_bento.web.schemas import ProcessRequest
from tests.checks import GOOD, check_error, check_still_works
from tests.fakes import FakePredictor
from tests.pictures import PICTURE, b64, bomb, encode, quarters
from tests.serving import client_of

JPEG = encode(quarters(), "JPEG")
BOX = {"box": [1, 1, 4, 4]}


def picture(data: bytes) -> dict[str, Any]:
    return {**GOOD, "base64Image": b64(data)}


BAD_FIELDS: list[tuple[str, Any, int, str]] = [
    ("no fields", {}, 400, "base64Image: field required"),
    ("no picture", {"prompt": "hi"}, 400, "base64Image: field required"),
    ("no prompt", {"base64Image": PICTURE}, 400, "prompt: field required"),
    ("null picture", {**GOOD, "base64Image": None}, 400, "base64Image: field required"),
    ("null prompt", {**GOOD, "prompt": None}, 400, "prompt: field required"),
    ("empty picture", {**GOOD, "base64Image": ""}, 400, "base64Image"),
    ("picture of a number", {**GOOD, "base64Image": 7}, 400, "base64Image"),
    ("picture of a list", {**GOOD, "base64Image": [PICTURE]}, 400, "base64Image"),
    ("not base64", {**GOOD, "base64Image": "not base64!"}, 400, "base64Image: not valid base64"),
    ("a URL", {**GOOD, "base64Image": "http://localhost/a.png"}, 400, "base64Image: the URL is not fetched"),
    ("another URL", {**GOOD, "base64Image": "ftp://localhost/a.png"}, 400, "base64Image: not valid base64"),
    ("a path", {**GOOD, "base64Image": "/etc/passwd."}, 400, "base64Image: not valid base64"),
    ("data URL without base64", {**GOOD, "base64Image": "data:image/png,abc"}, 400, "data url"),
    ("not an image", picture(b"just some text"), 400, "not a picture"),
    ("truncated JPEG", picture(JPEG[: len(JPEG) // 2]), 400, "truncated"),
    ("header only", picture(JPEG[:20]), 400, "truncated"),
    ("PDF", picture(b"%PDF-1.7 and so on"), 415, "PDF is not supported"),
    ("SVG", picture(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 415, "SVG is not supported"),
    ("AVIF", picture(b"\0\0\0\x1cftypavif" + b"\0" * 40), 415, "AVIF is not supported"),
    ("bomb", picture(bomb()), 413, "limit of 4 million pixels"),
    ("5 million pixels", picture(encode(Image.new("1", (2500, 2000)))), 413, "limit of 4 million pixels"),
    ("a side too long", picture(encode(Image.new("1", (70_000, 1)))), 413, "a side"),
    ("empty prompt", {**GOOD, "prompt": ""}, 400, "prompt"),
    ("blank prompt", {**GOOD, "prompt": " \n\t "}, 400, "prompt: empty"),
    ("prompt of a number", {**GOOD, "prompt": 7}, 400, "prompt: input should be a valid string"),
    ("prompt of a list", {**GOOD, "prompt": ["hi"]}, 400, "prompt: input should be a valid string"),
    ("prompt of an object", {**GOOD, "prompt": {"a": 1}}, 400, "prompt: input should be a valid string"),
    ("prompt true", {**GOOD, "prompt": True}, 400, "prompt: input should be a valid string"),
    ("half a surrogate pair", {**GOOD, "prompt": "\ud83d"}, 400, "prompt"),
    ("endless prompt", {**GOOD, "prompt": "word " * 50_000}, 413, "limit of 8192 tokens"),
    ("mask format", {**GOOD, "mask_format": "bitmap"}, 400, "mask_format"),
    ("mask format of a list", {**GOOD, "mask_format": []}, 400, "mask_format"),
    ("threshold above 1", {**GOOD, "mask_threshold": 1.5}, 400, "mask_threshold"),
    ("threshold below 0", {**GOOD, "mask_threshold": -0.1}, 400, "mask_threshold"),
    ("threshold of text", {**GOOD, "mask_threshold": "0.5"}, 400, "mask_threshold"),
    ("threshold true", {**GOOD, "mask_threshold": True}, 400, "mask_threshold"),
    ("threshold NaN", {**GOOD, "mask_threshold": float("nan")}, 400, "mask_threshold"),
    ("no new tokens", {**GOOD, "max_new_tokens": 0}, 400, "max_new_tokens"),
    ("half a token", {**GOOD, "max_new_tokens": 1.5}, 400, "max_new_tokens"),
    ("endless tokens", {**GOOD, "max_new_tokens": 10**30}, 400, "max_new_tokens"),
    ("negative tiles", {**GOOD, "max_tiles": -1}, 400, "max_tiles"),
    ("overlay of text", {**GOOD, "include_overlay": "yes"}, 400, "include_overlay"),
    ("history of text", {**GOOD, "history": "hi"}, 400, "history"),
    ("history of the system", {**GOOD, "history": [{"role": "system", "content": ""}]}, 400, "history[0].role"),
    ("history without content", {**GOOD, "history": [{"role": "user"}]}, 400, "history[0].content"),
    ("endless history", {**GOOD, "history": [{"role": "user", "content": ""}] * 65}, 400, "history"),
    ("regions of an object", {**GOOD, "regions": BOX}, 400, "regions"),
    ("too many regions", {**GOOD, "regions": [BOX] * 17}, 400, "16 at most"),
    ("region without shape", {**GOOD, "regions": [BOX, {}]}, 400, "regions[1]: give exactly one"),
    ("region of two shapes", {**GOOD, "regions": [{**BOX, "polygon": [[1, 1], [9, 1], [5, 9]]}]}, 400, "regions[0]"),
    ("box of three", {**GOOD, "regions": [{"box": [1, 2, 3]}]}, 400, "regions[0].box"),
    ("box of text", {**GOOD, "regions": [{"box": [1, 2, 3, "4"]}]}, 400, "regions[0].box[3]"),
    ("box outside", {**GOOD, "regions": [BOX, {"box": [40, 1, 20, 2]}]}, 400, "regions[1].box: (60, 3) lies outside"),
    ("polygon of two", {**GOOD, "regions": [{"polygon": [[1, 1], [2, 2]]}]}, 400, "regions[0].polygon"),
    ("polygon outside", {**GOOD, "regions": [{"polygon": [[0, 0], [59, 0], [0, 9]]}]}, 400, "regions[0].polygon"),
    ("mask of nothing", {**GOOD, "regions": [{"mask": {}}]}, 400, "regions[0].mask"),
    ("mask of another size", {**GOOD, "regions": [{"mask": {"size": [4, 4], "counts": [16]}}]}, 400, "[32, 48]"),
    ("mask of bad runs", {**GOOD, "regions": [{"mask": {"size": [32, 48], "counts": "xyz"}}]}, 400, "regions[0].mask"),
    ("mask of short runs", {**GOOD, "regions": [{"mask": {"size": [32, 48], "counts": [5]}}]}, 400, "regions[0].mask"),
    ("mask of no PNG", {**GOOD, "regions": [{"mask": {"data": b64(JPEG)}}]}, 400, "must be a png"),
    ("mask format", {**GOOD, "regions": [{"mask": {"format": "tar"}}]}, 400, "format must be rle or png"),
]


@pytest.mark.parametrize(("body", "status", "fragment"), [c[1:] for c in BAD_FIELDS], ids=[c[0] for c in BAD_FIELDS])
def test_bad_fields(client: TestClient, body: Any, status: int, fragment: str) -> None:
    text = json.dumps(body)
    response = client.post("/process", content=text, headers={"Content-Type": "application/json"})
    check_error(response, status, fragment)
    check_still_works(client)


JSON = "application/json"
NAMES = [*ProcessRequest.model_fields, "box", "polygon", "mask", "size", "counts", "data", "format", "role", "content"]
GOOD_TEXT = json.dumps(GOOD).encode()
BAD_BODIES: list[tuple[str, bytes, str | None, int, str]] = [
    ("empty", b"", JSON, 400, "not valid json"),
    ("half", GOOD_TEXT[:-5], JSON, 400, "not valid json"),
    ("list", b"[]", JSON, 400, "must be a json object"),
    ("text", b'"hi"', JSON, 400, "must be a json object"),
    ("null", b"null", JSON, 400, "must be a json object"),
    ("deep", b"[" * 200_000, JSON, 400, "not valid json"),
    ("number too long", b'{"a": ' + b"1" * 5000 + b"}", JSON, 400, "not valid json"),
    ("not UTF-8", b'{"prompt": "\xff\xfe"}', JSON, 400, "not valid json"),
    ("form", b"prompt=hi", "application/x-www-form-urlencoded", 415, "content type"),
    ("curl without a type", GOOD_TEXT, "application/x-www-form-urlencoded", 415, "content type"),
    ("plain text", GOOD_TEXT, "text/plain", 415, "content type"),
    ("picture", JPEG, "image/jpeg", 415, "content type"),
    ("octets", JPEG, "application/octet-stream", 415, "content type"),
    ("pickle", b"cos\nsystem\n(S'true'\ntR.", "application/vnd.bentoml+pickle", 415, "pickle"),
    ("nonsense type", GOOD_TEXT, "nonsense", 415, "content type"),
    ("multipart without boundary", b"x", "multipart/form-data", 400, "the form can't be read"),
    ("multipart of nothing", b"x", "multipart/form-data; boundary=a", 400, ""),
    ("announced too large", b" " * (2 * 2**20 + 1), JSON, 413, "limit of 2 MiB"),
    ("announced too large, no JSON", b" " * (2 * 2**20 + 1), "text/plain", 413, "limit of 2 MiB"),
]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "fragment"), [c[1:] for c in BAD_BODIES], ids=[c[0] for c in BAD_BODIES]
)
def test_bad_bodies(client: TestClient, body: bytes, content_type: str, status: int, fragment: str) -> None:
    response = client.post("/process", content=body, headers={"Content-Type": content_type})
    check_error(response, status, fragment)
    check_still_works(client)


def test_a_body_that_streams_over_the_limit(client: TestClient) -> None:
    chunks = (b" " * 2**16 for _ in range(40))
    response = client.post("/process", content=chunks, headers={"Content-Type": "application/json"})
    assert "content-length" not in response.request.headers
    check_error(response, 413, "limit of 2 MiB")
    check_still_works(client)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/nothing", 404),
        ("GET", "/../etc/passwd", 404),
        ("GET", "/process", 405),
        ("PUT", "/process", 405),
        ("DELETE", "/health", 405),
        ("POST", "/", 405),
        ("POST", "/livez", 405),
    ],
)
def test_wrong_routes(client: TestClient, method: str, path: str, status: int) -> None:
    check_error(client.request(method, path), status, "endpoint")


@pytest.mark.parametrize("failure", [RuntimeError("secret at /srv/x.py"), ValueError(), KeyError("k")])
def test_a_failing_model_answers_500_without_its_insides(
    client: TestClient, model: FakePredictor, failure: Exception
) -> None:
    model.failure = failure
    try:
        check_error(client.post("/process", json=GOOD), 500, "internal error")
    finally:
        model.failure = None
    check_still_works(client)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just(PICTURE),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=5))
def test_no_fields_whatever_are_our_failure(client: TestClient, fields: dict[str, Any]) -> None:
    response = client.post("/process", content=json.dumps({**GOOD, **fields}), headers={"Content-Type": JSON})
    assert response.status_code in (200, 400, 413, 415)
    assert isinstance(response.json().get("error" if response.is_error else "result"), str)


def test_clients_mistakes_leave_no_traceback(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    bodies = [json.dumps(case[1]).encode() for case in BAD_FIELDS]
    for body, content_type in [(body, JSON) for body in bodies] + [(c[1], c[2]) for c in BAD_BODIES]:
        client.post("/process", content=body, headers={"Content-Type": content_type or JSON})
    client.post("/health", content=b"{", headers={"Content-Type": JSON})
    assert [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"] == []


def test_health_ignores_a_body(client: TestClient) -> None:
    assert client.post("/health", content=b"{", headers={"Content-Type": JSON}).json()["status"] == "running"


def test_a_full_queue_is_said_before_anything_is_read() -> None:
    full = FakePredictor(capacity=0)
    with client_of(full) as client:
        check_error(client.post("/process", json={**GOOD, "prompt": ""}), 503, "queue is full")
        response = client.post("/process", json=GOOD)
        check_error(response, 503, "queue is full")
        assert int(response.headers["retry-after"]) >= 1

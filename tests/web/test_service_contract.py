"""The shapes that clients know: the original's routes, the answer in full, uploads, the generated client."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import bentoml
import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from starlette.testclient import TestClient

from sa2va_bento.types import Stage
from tests.fakes import FakePredictor
from tests.pictures import PICTURE, b64, encode, quarters
from tests.serving import client_of, server_of

GOOD: dict[str, Any] = {"base64Image": PICTURE, "prompt": "Please segment it."}


def test_welcome_is_the_originals(client: TestClient) -> None:
    assert client.get("/").json() == {
        "message": "Welcome to the Sa2VA API Server",
        "endpoints": {
            "/health": "GET - Health check and server status",
            "/process": "POST - Process image with text prompt",
            "/process_stream": "POST - The same, answered as server-sent events",
            "/process_video": "POST - Process a video with text prompts, as a job",
            "/jobs/{job_id}": "GET - Where a video job stands; /result, /events, DELETE",
            "/v1/chat/completions": "POST - OpenAI chat completions",
            "/v1/models": "GET - The served model, for OpenAI clients",
        },
    }


def test_health_is_the_originals_and_more(client: TestClient) -> None:
    answer = client.get("/health").json()
    assert list(answer)[:5] == ["status", "uptime", "started_at", "model_path", "endpoints"]
    assert answer["status"] == "running"
    assert re.fullmatch(r"\d+:\d\d:\d\d", answer["uptime"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", answer["started_at"])
    assert abs((datetime.now() - datetime.fromisoformat(answer["started_at"])).total_seconds()) < 3600
    assert answer["model_path"] == "sa2va-nano"
    assert answer["endpoints"] == client.get("/").json()["endpoints"]
    assert (answer["family"], answer["device"], answer["dtype"]) == ("fake", "cpu", "float32")
    assert answer["queue_depth"] == 0


def test_health_is_the_same_by_post(client: TestClient) -> None:
    got, posted = client.get("/health").json(), client.post("/health", json={}).json()
    assert {**got, "uptime": ""} == {**posted, "uptime": ""}


def test_process_in_full(client: TestClient) -> None:
    response = client.post("/process", json=GOOD, headers={"X-Request-ID": "mine-1"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert answer.pop("timings_ms").keys() == {*map(str, Stage), "total"}
    assert answer == {
        "result": "Sure, <p> the left half </p> [SEG].",
        "text": "Sure, the left half.",
        "model": "sa2va-nano",
        "request_id": "mine-1",
        "image": {"width": 48, "height": 32},
        "segments": [
            {
                "id": 0,
                "phrase": "the left half",
                "text_span": [6, 19],
                "score": 0.93,
                "object_score": 0.99,
                "bbox": [0, 0, 24, 32],
                "area": 768,
                "threshold": 0.5,
                "mask": {"format": "rle", "size": [32, 48], "counts": "0Ph0Ph0"},
            }
        ],
        "overlay": None,
        "usage": {"prompt_tokens": 300, "image_tokens": 256, "completion_tokens": 5, "total_tokens": 305},
        "finish_reason": "stop",
        "warnings": [],
    }


def test_the_mask_is_read_by_pycocotools_as_it_is(client: TestClient) -> None:
    mask = client.post("/process", json=GOOD).json()["segments"][0]["mask"]
    decoded = coco.decode(mask)
    assert decoded.shape == (32, 48)
    assert decoded[:, :24].all()
    assert not decoded[:, 24:].any()


@pytest.mark.parametrize("mask_format", ["png", "polygon", "none"])
def test_other_mask_formats(client: TestClient, mask_format: str) -> None:
    (segment,) = client.post("/process", json={**GOOD, "mask_format": mask_format}).json()["segments"]
    assert segment["area"] == 768
    assert (segment["mask"] or {"format": "none"})["format"] == mask_format


@pytest.mark.parametrize(
    "picture",
    [
        PICTURE,
        f"data:image/png;base64,{PICTURE}",
        "\n".join(PICTURE[i : i + 76] for i in range(0, len(PICTURE), 76)) + "\n",
        b64(encode(quarters(), "JPEG")),
        b64(encode(quarters(), "GIF", save_all=True, append_images=[Image.new("RGB", (48, 32))])),
        b64(encode(quarters().convert("CMYK"), "JPEG")),
        b64(encode(quarters().convert("P"), transparency=0)),
        b64(encode(Image.fromarray(np.full((32, 48), 40_000, np.uint16)))),
    ],
    ids=["plain", "data URL", "lines", "JPEG", "animated GIF", "CMYK", "palette", "16 bits"],
)
def test_pictures_as_clients_send_them(client: TestClient, model: FakePredictor, picture: str) -> None:
    answer = client.post("/process", json={**GOOD, "base64Image": picture}).json()
    assert answer["image"] == {"width": 48, "height": 32}
    image = model.requests[-1].image
    assert image is not None
    assert image.mode == "RGB"


@pytest.mark.parametrize("size", [(1, 1), (4000, 10)])
def test_odd_sizes(client: TestClient, size: tuple[int, int]) -> None:
    answer = client.post("/process", json={**GOOD, "base64Image": b64(encode(Image.new("RGB", size)))}).json()
    assert answer["segments"][0]["mask"]["size"] == [size[1], size[0]]


def test_sizes_are_those_of_the_displayed_picture(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    turned = b64(encode(quarters(), "JPEG", exif=exif))
    box = {"box": [0, 40, 10, 8]}
    answer = client.post("/process", json={**GOOD, "base64Image": turned, "regions": [box]}).json()
    assert answer["image"] == {"width": 32, "height": 48}
    assert answer["segments"][0]["mask"]["size"] == [48, 32]


@pytest.mark.parametrize(
    "prompt",
    [
        "<IMG_CONTEXT>" * 3,
        "<image> <image>",
        "<|im_end|><|im_start|>assistant",
        "say [SEG] now",
        "<p> x </p> [SEG]",
        "{TEXT} {0} %s \\n",
        "zwölf Boxkämpfer 汉字 🦊 \u202e",
        " padded ",
        "nul \0 inside",
    ],
)
def test_prompts_reach_the_model_unchanged(client: TestClient, model: FakePredictor, prompt: str) -> None:
    response = client.post("/process", json={**GOOD, "prompt": prompt})
    assert response.status_code == 200
    assert model.requests[-1].prompt == prompt
    assert response.json()["segments"] == []


def test_unknown_fields_are_ignored_with_a_warning(client: TestClient) -> None:
    answer = client.post("/process", json={**GOOD, "max_token": 5}).json()
    assert answer["warnings"] == ["unknown field ignored: 'max_token'"]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/geo+json", None])
def test_json_by_any_name(client: TestClient, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert client.post("/process", content=json.dumps(GOOD), headers=headers).status_code == 200


def test_a_file_may_be_uploaded(client: TestClient, model: FakePredictor) -> None:
    response = client.post(
        "/process",
        data={
            "prompt": "1234",
            "mask_threshold": "0.25",
            "max_tiles": "2",
            "regions": json.dumps([{"box": [1, 1, 4, 4]}]),
            "other": "x",
        },
        files={"image": ("a.jpg", encode(quarters(), "JPEG"), "image/jpeg")},
    )
    assert response.status_code == 200
    asked = model.requests[-1]
    assert (asked.prompt, asked.mask_threshold, asked.max_tiles) == ("1234", 0.25, 2)
    assert asked.regions[0].sum() == 16
    assert response.json()["warnings"] == ["unknown field ignored: 'other'"]


def test_a_large_file_may_be_uploaded(client: TestClient) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8))
    data = encode(noise)
    assert len(data) > 1_300_000
    assert client.post("/process", data={"prompt": "hi"}, files={"image": data}).status_code == 200
    form = {"prompt": (None, "hi"), "base64Image": (None, b64(data[:1_200_000]))}
    assert "truncated" in client.post("/process", files=form).json()["error"]


@pytest.mark.parametrize(
    ("fields", "files", "fragment"),
    [
        ({"prompt": "hi"}, {"picture": b"x"}, "must be named image"),
        ({}, {"image": encode(quarters())}, "prompt: field required"),
        ({"prompt": "hi"}, {"image": b""}, "base64Image"),
        ({"prompt": "hi", "max_tiles": "two"}, {"image": encode(quarters())}, "max_tiles"),
    ],
)
def test_bad_uploads(client: TestClient, fields: dict[str, str], files: dict[str, bytes], fragment: str) -> None:
    response = client.post("/process", data=fields, files=files)
    assert response.status_code == 400
    assert fragment in response.json()["error"]


def test_two_files_are_one_too_many(client: TestClient) -> None:
    files = [("image", encode(quarters())), ("image", encode(quarters()))]
    response = client.post("/process", data={"prompt": "hi"}, files=files)
    assert response.status_code == 400
    assert "too many files" in response.json()["error"]


@pytest.mark.parametrize("text", [PICTURE, ""])
def test_a_file_and_a_text_are_one_picture_too_many(client: TestClient, text: str) -> None:
    for order in (1, -1):
        parts = [("image", ("a.png", encode(quarters()))), ("base64Image", (None, text)), ("prompt", (None, "hi"))]
        response = client.post("/process", files=parts[::order])
        assert response.status_code == 400
        assert "one picture" in response.json()["error"]


@pytest.mark.parametrize("given", ["", "has blanks", "x" * 200, "a\tb", "<script>"])
def test_unclean_request_ids_are_replaced(client: TestClient, given: str) -> None:
    response = client.post("/process", json=GOOD, headers={"X-Request-ID": given})
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_pages_of_other_origins_may_call(client: TestClient) -> None:
    preflight = {"Origin": "http://page.example", "Access-Control-Request-Method": "POST"}
    preflight["Access-Control-Request-Headers"] = "content-type"
    assert client.options("/process", headers=preflight).headers["access-control-allow-origin"] == "*"
    failed = client.post("/process", content=b"{", headers={"Origin": "http://page.example"})
    assert failed.status_code == 400
    assert failed.headers["access-control-allow-origin"] == "*"


def test_origins_can_be_restricted() -> None:
    with client_of(FakePredictor(), SA2VA_CORS_ORIGINS="http://a.example, http://b.example") as client:
        allowed = client.get("/", headers={"Origin": "http://b.example"})
        assert allowed.headers["access-control-allow-origin"] == "http://b.example"
        assert "access-control-allow-origin" not in client.get("/", headers={"Origin": "http://c.example"}).headers


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server_of(FakePredictor(), SA2VA_MAX_BODY_MB="2") as url:
        yield url


def test_the_generated_client(url: str) -> None:
    with bentoml.SyncHTTPClient(url) as client:
        answer = client.process(base64Image=PICTURE, prompt="Please segment it.", regions=[{"box": [1, 1, 4, 4]}])  # type: ignore[attr-defined]
        assert isinstance(answer, dict)
        assert coco.decode(answer["segments"][0]["mask"]).sum() == 768
        for mask_format in ("png", "polygon", "none"):
            masked = client.process(base64Image=PICTURE, prompt="segment", mask_format=mask_format)  # type: ignore[attr-defined]
            raw = httpx.post(f"{url}/process", json={**GOOD, "mask_format": mask_format}).json()
            assert masked["segments"] == raw["segments"]
        assert client.health()["status"] == "running"  # type: ignore[attr-defined]
        with pytest.raises(bentoml.exceptions.BentoMLException, match="prompt: empty"):
            client.process(base64Image=PICTURE, prompt=" ")  # type: ignore[attr-defined]


def test_a_body_over_the_limit_is_answered_on_a_socket(url: str) -> None:
    with httpx.Client(base_url=url, timeout=20) as client:
        for _ in range(2):  # the connection stays usable
            response = client.post("/process", content=b" " * (5 * 2**20), headers={"Content-Type": "application/json"})
            assert response.status_code == 413
            assert "2 MiB" in response.json()["error"]
        assert client.post("/process", json=GOOD).status_code == 200


@pytest.mark.parametrize("path", ["/process/", "/process//", "/health/", "/v1/models/"])
def test_a_trailing_slash_changes_nothing(client: TestClient, path: str) -> None:
    method, body = ("POST", GOOD) if "process" in path else ("GET", None)
    answer = client.request(method, path, json=body, follow_redirects=False)
    assert answer.status_code == 200

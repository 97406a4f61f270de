"""A request can be followed: its id in the log, its stage timings, its part in the metrics. Service and nano model."""

import logging
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageDraw
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from sa2va_bento.types import Stage
from tests.pictures import b64, encode
from tests.serving import client_of

SEGMENT = "Please segment the red circle."


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load(Settings())


@pytest.fixture(scope="module")
def nano(predictor: Predictor) -> Iterator[TestClient]:
    with client_of(predictor) as client:
        yield client


def circle(shift: int) -> str:
    """A red circle on grey, another picture for each shift, in base64."""
    picture = Image.new("RGB", (320, 240), (205, 205, 200 + shift))
    ImageDraw.Draw(picture).ellipse((60, 50, 170, 160), fill=(220, 30, 30))
    return b64(encode(picture))


def noise(width: int, height: int) -> str:
    """A picture that takes its time to decode, in base64."""
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return b64(encode(Image.fromarray(pixels), "JPEG", quality=90))


@pytest.mark.parametrize("size", [(64, 48), (6000, 4000)], ids=["small", "24 megapixels"])
def test_the_stages_are_the_whole_way(nano: TestClient, size: tuple[int, int]) -> None:
    body = {"base64Image": noise(*size), "prompt": SEGMENT, "mask_format": "png"}
    nano.post("/process", json={**body, "base64Image": noise(32, 32)})
    started = time.monotonic()
    timings = nano.post("/process", json=body).json()["timings_ms"]
    wall_ms = 1e3 * (time.monotonic() - started)
    total = timings.pop("total")
    assert set(timings) == set(Stage)
    assert sum(timings.values()) == pytest.approx(total, rel=0.01)
    assert total <= wall_ms  # the client's own share apart: making JSON of megabytes
    for stage in (Stage.IMAGE_DECODE, Stage.PREPROCESS, Stage.ENCODE, Stage.PREFILL, Stage.DECODE, Stage.SEGMENT):
        assert timings[stage] > 0, stage
    if size[0] > 1000:  # decoding 24 megapixels belongs to decoding, and is most of it
        assert timings[Stage.IMAGE_DECODE] > 0.2 * total


def test_streams_have_the_same_timings(nano: TestClient) -> None:
    answer = nano.post("/process_stream", json={"base64Image": noise(40, 40), "prompt": SEGMENT}).text
    assert all(f'"{stage}":' in answer for stage in (*Stage, "total"))


def series(client: TestClient) -> dict[str, float]:
    """Every sample of `/metrics` by its name and labels."""
    text = client.get("/metrics").text
    return {
        f"{sample.name}{sorted(sample.labels.items()) or ''}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_what_was_answered(nano: TestClient) -> None:
    before = series(nano)
    for _ in range(2):
        answer = nano.post("/process", json={"base64Image": circle(9), "prompt": SEGMENT}).json()
    assert nano.post("/process", json={"base64Image": "no picture", "prompt": SEGMENT}).status_code == 400
    assert nano.get("/not/there").status_code == 404
    after = series(nano)

    def grown(name: str, **labels: str) -> float:
        key = f"{name}{sorted(labels.items()) or ''}"
        return after[key] - before.get(key, 0)

    usage = answer["usage"]
    assert grown("sa2va_requests_total") == 2
    assert grown("sa2va_prompt_tokens_total") == 2 * usage["prompt_tokens"]
    assert grown("sa2va_generation_tokens_total") == 2 * usage["completion_tokens"]
    assert grown("sa2va_segments_total") == 2 * len(answer["segments"])
    assert grown("sa2va_time_to_first_token_seconds_count") == 2
    assert grown("sa2va_time_per_output_token_seconds_count") == 2
    assert grown("sa2va_stage_seconds_count", stage="decode") == 2
    assert grown("sa2va_batch_size_count", stage="decode") >= usage["completion_tokens"] - 1
    assert grown("sa2va_cache_hits_total", cache="prefix") == 1
    assert grown("sa2va_cache_misses_total", cache="prefix") == 1
    assert grown("sa2va_requests_rejected_total", reason="bad_request") == 1
    assert grown("sa2va_http_requests_total", method="POST", route="/process", status="200") == 2
    assert grown("sa2va_http_requests_total", method="GET", route="other", status="404") == 1
    assert after["sa2va_requests_running"] == after["sa2va_requests_waiting"] == 0
    assert after["sa2va_kv_cache_usage_ratio"] == 0
    assert 0 < after["sa2va_device_memory_used_bytes"] < after["sa2va_device_memory_total_bytes"]


def test_strangers_make_no_series(nano: TestClient) -> None:
    before = len(series(nano))
    for number in range(50):
        nano.get(f"/{number}/{'x' * 1000}")
        nano.request(f"METHOD{number}", "/process")
    assert len(series(nano)) <= before + 4


def test_a_failure_can_be_found_by_its_id(
    nano: TestClient, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> object:
        raise RuntimeError("boom")

    for number, where in enumerate(("decode", "ground", "encode"), 20):
        with monkeypatch.context() as patched, caplog.at_level(logging.INFO):
            caplog.clear()
            patched.setattr(predictor._runner, where, fail)
            body = {"base64Image": circle(number), "prompt": SEGMENT}
            answer = nano.post("/process", json=body, headers={"X-Request-ID": f"find-{where}"})
        assert (answer.status_code, answer.json()["request_id"]) == (500, f"find-{where}")
        failures = [record for record in caplog.records if record.exc_info]
        assert len(failures) == 1
        assert f"find-{where}" in failures[0].getMessage()
        assert all(f"find-{where}" in line.getMessage() for line in caplog.records if "request" in line.getMessage())


def test_the_access_log_has_one_line_and_no_line_breaks(nano: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sa2va_bento.access"):
        nano.get("/a%0d%0aforged%1b[31m", headers={"X-Request-ID": "evil\r\nid"})
        nano.get("/livez")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "sa2va_bento.access"]
    assert line.isprintable()
    assert "GET /a\\r\\nforged\\x1b[31m answered 404" in line

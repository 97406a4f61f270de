"""The log as JSON and the spans of a request's stages, of a real service: an OTLP receiver, and what stdout has."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sa2va_bento.types import Stage
from tests.pictures import PICTURE
from tests.serving import ROOT, wait_until_ready

PROMPT = "Please segment the zebra-striped umbrella."
REQUEST_ID = "request-of-the-test"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@contextmanager
def collector() -> Iterator[tuple[str, list[Span]]]:
    """A receiver of OTLP over HTTP: its endpoint, and the spans that came."""
    spans: list[Span] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = ExportTraceServiceRequest()
            sent.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
            spans.extend(span for found in sent.resource_spans for scope in found.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Run:
    """What a service left behind that answered a request and refused one."""

    lines: list[str]
    answer: dict[str, Any] = field(repr=False)
    spans: list[Span] = field(repr=False)

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with collector() as (endpoint, spans):
        otlp = {"protocol": "http", "endpoint": endpoint}
        tracing = {"exporter_type": "otlp", "sample_rate": 1.0, "otlp": otlp}
        environment = {
            "BENTOML_CONFIG_OVERRIDES": json.dumps({"services": {"sa2va": {"tracing": tracing}}}),
            "BENTOML_HOME": str(tmp_path_factory.mktemp("home")),
            "BENTOML_DO_NOT_TRACK": "True",
            "SA2VA_LOG_FORMAT": "json",
        }
        command = [str(Path(sys.executable).with_name("bentoml")), "serve", "service:Sa2VA", "--port", str(port)]
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                wait_until_ready(client, timeout_s=120)
                headers = {"X-Request-ID": REQUEST_ID, "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
                body = {"base64Image": PICTURE, "prompt": PROMPT}
                answer = client.post("/process", json=body, headers=headers).json()
                client.post("/process", json={**body, "mask_threshold": 7})
        finally:
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
    _wait(lambda: any(span.name == f"sa2va.{Stage.RENDER}" for span in spans))
    return Run(output.splitlines(), answer, spans)


def _wait(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_every_line_is_an_object(run: Run) -> None:
    assert run.lines
    for event in run.log:
        assert {"time", "level", "logger", "message"} <= event.keys()


def test_a_request_can_be_found_by_its_id_and_its_trace(run: Run) -> None:
    (event,) = (event for event in run.log if event.get("request_id") == REQUEST_ID)
    assert event["trace_id"] == TRACE
    assert (event["method"], event["path"], event["status"]) == ("POST", "/process", 200)
    assert event["duration_ms"] >= run.answer["timings_ms"]["total"] * 0.9


def test_what_was_asked_and_answered_is_not_in_the_log(run: Run) -> None:
    text = "\n".join(run.lines)
    assert "zebra" not in text
    assert run.answer["text"] not in text
    assert PICTURE[:40] not in text


def test_each_stage_is_a_span_within_the_requests(run: Run) -> None:
    traced = [span for span in run.spans if span.trace_id.hex() == TRACE]
    stages = {span.name.removeprefix("sa2va."): span for span in traced if span.name.startswith("sa2va.")}
    assert {Stage.IMAGE_DECODE, Stage.ENCODE, Stage.PREFILL, Stage.DECODE, Stage.RENDER} <= stages.keys()
    (request,) = (span for span in traced if span.span_id == stages[Stage.DECODE].parent_span_id)
    assert {attribute.key: attribute.value.string_value for attribute in request.attributes}[
        "sa2va.request_id"
    ] == REQUEST_ID
    slack = 20_000_000  # nanoseconds between two clocks
    for stage, span in stages.items():
        (seconds,) = (attribute.value.double_value for attribute in span.attributes)
        assert span.parent_span_id == request.span_id
        assert request.start_time_unix_nano - slack <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano + slack
        assert 1e3 * seconds == pytest.approx(run.answer["timings_ms"].get(stage, 1e3 * seconds), abs=20)

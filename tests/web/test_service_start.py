"""`bentoml serve` with a setting or a model that can't work: one line, a non-zero exit, nothing left behind."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer

from sa2va_bento.web import startup
from tests.serving import ROOT, load_service

TRACING: dict[str, Any] = {
    "exporter_type": "otlp",
    "sample_rate": 1.0,
    "otlp": {"protocol": "grpc", "endpoint": "http://127.0.0.1:1"},
}


def serve(**environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `bentoml serve` on a free port until it ends by itself, and sees that it leaves nothing behind."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "service:Sa2VA", "--port", str(port)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SA2VA_", "BENTOML_"))}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**clean, "BENTOML_DO_NOT_TRACK": "True", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output, _ = process.communicate(timeout=120)
    assert list(Path(startup.IN_MEMORY).glob(f"sa2va-{process.pid}-*")) == []
    return subprocess.CompletedProcess(command, process.returncode, output)


def lines_of_ours(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in result.stdout
    return [line for line in result.stdout.splitlines() if line.startswith("sa2va:")]


@pytest.mark.parametrize(
    ("environment", "fragment"),
    [
        ({"MODEL_PATH": "/nowhere/at-all"}, "'/nowhere/at-all'"),
        ({"MODEL_PATH": "owner/name", "HF_HUB_OFFLINE": "1", "HF_HOME": "/nowhere/hub"}, "not in the local cache"),
        ({"SA2VA_TIMEOUT_S": "soon"}, "SA2VA_TIMEOUT_S"),
        ({"SA2VA_API_KEYS": ""}, "SA2VA_API_KEYS"),
        (
            {"BENTOML_CONFIG_OVERRIDES": json.dumps({"services": {"sa2va": {"tracing": TRACING}}})},
            "opentelemetry-exporter-otlp-proto-grpc is not installed",
        ),
    ],
    ids=["model", "hub", "setting", "keys", "tracing"],
)
def test_what_can_not_start_says_why_in_one_line(environment: dict[str, str], fragment: str, tmp_path: Path) -> None:
    result = serve(BENTOML_HOME=str(tmp_path), **environment)
    assert result.returncode == 1
    (line,) = lines_of_ours(result)
    assert fragment in line


@pytest.mark.parametrize("home", ["/proc/none", "/dev/null", "/dev/null/none"])
def test_a_home_that_can_not_be_is_one_line(home: str) -> None:
    result = serve(BENTOML_HOME=home)
    assert result.returncode == 1
    (line,) = lines_of_ours(result)
    assert line == result.stdout.strip()
    assert "BENTOML_HOME" in line
    assert home in line


@pytest.mark.parametrize(("rate", "expected"), [(None, "true"), (0.0, "true"), (0.5, None)])
def test_tracing_costs_nothing_unless_it_is_configured_for_the_service(
    monkeypatch: pytest.MonkeyPatch, rate: float | None, expected: str | None
) -> None:
    service = load_service(None).Sa2VA
    monkeypatch.setenv("OTEL_SDK_DISABLED", "")  # restored afterwards
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    overrides = {"services": {"sa2va": {"tracing": {"sample_rate": rate}}}}
    monkeypatch.setenv("BENTOML_CONFIG_OVERRIDES", json.dumps(overrides))
    startup.settle_tracing(service)
    assert os.environ.get("OTEL_SDK_DISABLED") == expected
    monkeypatch.delenv("BENTOML_CONFIG_OVERRIDES")
    service.inject_config()  # as it was


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({}, "opentelemetry-exporter-otlp-proto-grpc"),
        ({"otlp": {"protocol": "http", "endpoint": "http://127.0.0.1:1"}}, None),
        ({"sample_rate": None}, None),
        ({"exporter_type": None}, None),
        ({"exporter_type": "in_memory"}, None),
        ({"exporter_type": "zipkin", "zipkin": {"endpoint": None}}, None),
        ({"exporter_type": "zipkin", "zipkin": {"endpoint": "http://a"}}, "opentelemetry-exporter-zipkin-json"),
    ],
)
def test_tracing_needs_its_exporter(change: dict[str, Any], missing: str | None) -> None:
    assert startup.missing_exporter({**TRACING, **change}) == missing


def test_an_exporter_that_is_there_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "EXPORTERS", {("otlp", "grpc"): "opentelemetry.sdk.trace"})
    assert startup.missing_exporter(TRACING) is None


def test_each_service_has_a_folder_of_its_own_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def share() -> Path:
        startup.share_folder()
        return Path(BentoMLContainer.prometheus_multiproc_dir.get())

    monkeypatch.setattr(startup, "IN_MEMORY", str(tmp_path))
    first, second = share(), share()
    assert first.parent == second.parent == tmp_path
    assert first != second
    monkeypatch.setattr(startup, "IN_MEMORY", "/nowhere")
    assert share().parent != tmp_path


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    full = SimpleNamespace(f_bavail=10, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    with pytest.raises(SystemExit, match=r"^sa2va: there is no room for the metrics"):
        startup.share_folder()


def test_no_folder_for_temporary_files_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(startup.tempfile, "gettempdir", none)
    with pytest.raises(SystemExit, match=r"^sa2va: No usable temporary directory"):
        startup.share_folder()

"""`bentoml serve` with a setting or a model that can't work: one line, a non-zero exit, nothing left behind."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sa2va_bento.web import startup
from tests.serving import ROOT


def serve(**environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `bentoml serve` on a free port until it ends by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "service:Sa2VA", "--port", str(port)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SA2VA_", "BENTOML_"))}
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**clean, "BENTOML_DO_NOT_TRACK": "True", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def lines_of_ours(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in result.stdout + result.stderr
    return [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("sa2va:")]


@pytest.mark.parametrize(
    ("environment", "fragment"),
    [
        ({"MODEL_PATH": "/nowhere/at-all"}, "'/nowhere/at-all'"),
        ({"MODEL_PATH": "owner/name", "HF_HUB_OFFLINE": "1", "HF_HOME": "/nowhere/hub"}, "not in the local cache"),
        ({"SA2VA_TIMEOUT_S": "soon"}, "SA2VA_TIMEOUT_S"),
    ],
    ids=["model", "hub", "setting"],
)
def test_what_can_not_start_says_why_in_one_line(environment: dict[str, str], fragment: str) -> None:
    result = serve(**environment)
    assert result.returncode == 1
    (line,) = lines_of_ours(result)
    assert fragment in line


@pytest.mark.parametrize(("rate", "expected"), [(None, "true"), (0.0, "true"), (0.5, None)])
def test_tracing_costs_nothing_unless_it_is_configured(
    monkeypatch: pytest.MonkeyPatch, rate: float | None, expected: str | None
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "")  # restored afterwards
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    monkeypatch.setattr(startup, "_sample_rate", lambda: rate)
    startup.leave_tracing_out()
    assert os.environ.get("OTEL_SDK_DISABLED") == expected

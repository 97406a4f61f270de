"""The Bento: its pins are the project's, its content is the service and nothing else, and it serves from anywhere."""

import os
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest
import yaml

from tests.pictures import PICTURE
from tests.serving import ROOT, wait_until_ready

BENTOML = Path(sys.executable).with_name("bentoml")


def name_and_version(requirement: str) -> tuple[str, str]:
    name, _, version = requirement.partition("==")
    return name, version


def test_the_bento_pins_what_the_project_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["python"]["packages"]
    wanted, pinned = dict(map(name_and_version, project)), dict(map(name_and_version, bento))
    assert pinned.keys() == wanted.keys()
    for name, version in pinned.items():
        assert version.startswith(wanted[name].removesuffix("*")), name
        assert "*" not in version


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables for `bentoml`, with a Bento store of the test's own and the uv of this environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SA2VA_", "BENTOML_"))}
    path = f"{BENTOML.parent}{os.pathsep}{clean['PATH']}"
    home = str(tmp_path_factory.mktemp("bentoml"))
    return {**clean, "PATH": path, "BENTOML_HOME": home, "BENTOML_DO_NOT_TRACK": "True"}


@pytest.fixture(scope="module")
def bento(environment: dict[str, str]) -> Path:
    """The folder of a built Bento."""
    subprocess.run([BENTOML, "build"], cwd=ROOT, env=environment, check=True, capture_output=True, timeout=300)
    (latest,) = Path(environment["BENTOML_HOME"]).glob("bentos/sa2va/*/bento.yaml")
    return latest.parent


@pytest.mark.slow
def test_a_built_bento_is_of_spec_2_and_holds_the_service_alone(bento: Path) -> None:
    assert yaml.safe_load((bento / "bento.yaml").read_text())["spec"] == 2
    source = bento / "src"
    assert {path.name for path in source.iterdir()} == {"service.py", "sa2va_bento", "bentofile.yaml"}
    packed = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    package = {path.relative_to(ROOT) for path in (ROOT / "sa2va_bento").rglob("*.py")}
    assert package <= packed
    assert {Path("sa2va_bento/nano") / name for name in ("config.json", "model.safetensors")} <= packed
    assert sum(path.stat().st_size for path in source.rglob("*")) < 20 * 2**20


@pytest.mark.slow
def test_a_built_bento_serves_from_another_folder(bento: Path, environment: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [str(BENTOML), "serve", f"sa2va:{bento.name}", "--port", str(port)]
    server = subprocess.Popen(command, cwd=tmp_path, env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_until_ready(client, timeout_s=120)
            body = {"base64Image": PICTURE, "prompt": "What is this?", "max_new_tokens": 4}
            response = client.post("/process", json=body)
            assert response.status_code == 200
            assert response.json()["model"] == "sa2va-nano"
            assert client.get("/metrics").status_code == 200
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0

"""The locks and the Bento: everything is pinned once, the Bento holds the service alone and serves from anywhere."""

import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.pictures import PICTURE
from tests.serving import ROOT, wait_until_ready

BENTOML = Path(sys.executable).with_name("bentoml")


def pins(requirements: str) -> dict[str, str]:
    """The version that each line of a requirements file asks for, by name."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", requirements, re.MULTILINE))


def lock(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text()


def lines(requirements: str) -> list[str]:
    return [line for line in requirements.splitlines() if line and not line.lstrip().startswith("#")]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def declared(*extras: str) -> dict[str, str]:
    """What `pyproject.toml` asks for, with these extras, torch apart."""
    table = project()["project"]
    extra = [requirement for name in extras for requirement in table["optional-dependencies"][name]]
    versions = dict(requirement.split("==") for requirement in [*table["dependencies"], *extra])
    return {name: version for name, version in versions.items() if name != "torch"}


UNLOCKED = ("cloud", "ray")
"""Extras that are too large for everybody's tests."""


@pytest.mark.parametrize(
    ("name", "extras"),
    [("serve", ()), ("dev", tuple(set(project()["project"]["optional-dependencies"]) - set(UNLOCKED)))],
    ids=("serve", "dev"),
)
def test_the_lock_holds_what_the_project_declares(name: str, extras: tuple[str, ...]) -> None:
    pinned = pins(lock(name))
    for package, version in declared(*extras).items():
        assert fnmatch(pinned.get(package, "missing"), version), f"{package}: run `make lock`"


@pytest.mark.parametrize("name", ["serve", "dev"])
def test_the_lock_has_hashes_for_all_but_torch_and_names_no_machine(name: str) -> None:
    text = lock(name)
    assert len(re.findall(r"^[\w.-]+==.* \\\n    --hash=sha256:", text, re.MULTILINE)) == len(pins(text))
    assert not {package for package in pins(text) if package.startswith(("torch", "nvidia-", "triton"))} - {
        "nvidia-ml-py"
    }
    assert "://" not in text
    assert "--index" not in text


def test_both_locks_hold_the_same_releases() -> None:
    assert pins(lock("serve")).items() <= pins(lock("dev")).items()


def test_what_builds_the_package_is_locked_too() -> None:
    assert project()["build-system"]["requires"] == [f"setuptools=={pins(lock('serve'))['setuptools']}"]


def test_torch_for_gpus_is_locked_apart_with_what_it_brings() -> None:
    gpu = pins(lock("cuda"))
    (torch,) = (line for line in project()["project"]["dependencies"] if line.startswith("torch=="))
    assert f"torch=={gpu['torch']}" == torch
    assert not gpu.keys() & pins(lock("serve")).keys()
    assert {name.partition("-")[0] for name in gpu} == {"torch", "triton", "nvidia", "cuda"}
    assert len(re.findall(r"^[\w.-]+==.* \\\n    --hash=sha256:", lock("cuda"), re.MULTILINE)) == len(gpu)


def test_the_bento_is_given_the_locks() -> None:
    options = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["python"]
    assert options == {"requirements_txt": "requirements/bento.txt", "lock_packages": False}
    assert lines(lock("bento")) == [*lines(lock("serve")), *lines(lock("cuda"))]


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
    page = {path.relative_to(ROOT) for path in (ROOT / "sa2va_bento/web/playground/static").rglob("*.*")}
    assert package | page <= packed
    assert {Path("sa2va_bento/nano") / name for name in ("config.json", "model.safetensors")} <= packed
    assert sum(path.stat().st_size for path in source.rglob("*")) < 20 * 2**20


@pytest.mark.slow
def test_a_built_bento_installs_the_lock(bento: Path) -> None:
    installed = (bento / "env/python/requirements.txt").read_text()
    assert pins(installed) == pins(lock("bento"))
    assert re.findall("sha256:[0-9a-f]+", installed) == re.findall("sha256:[0-9a-f]+", lock("bento"))
    assert not (bento / "env/python/requirements.lock.txt").exists()


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

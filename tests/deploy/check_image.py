"""The image, built and run: `make image-test`. As root, with buildah, debootstrap and the registries that pip knows."""

import asyncio
import base64
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest
import yaml
from pycocotools import mask as coco

from tests.deploy import build
from tests.deploy.container import Container, Image, run
from tests.events import read_events
from tests.pictures import PICTURE
from tests.serving import ROOT, wait_until_ready
from tests.test_bento import lock, pins

NANO = {"MODEL_PATH": "nano", "SA2VA_API_KEYS": "none"}
MOST_BYTES = 1.5e9
TOOLS = ("gcc", "cc", "g++", "ld", "make", "git", "uv", "pip", "pip3")
REPLY = "Please describe the image. Please respond with interleaved segmentation masks for the corresponding parts."


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build.build(tmp_path_factory.mktemp("build"))


@dataclass
class Service:
    """A container that serves, and a client of it."""

    container: Container
    url: str
    client: httpx.Client


@contextmanager
def serving(image: Image, folder: Path, **environment: str) -> Iterator[Service]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (
        run(image, folder, {**NANO, **environment}, ["--port", str(port)]) as container,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        wait_until_ready(client, timeout_s=120)
        yield Service(container, url, client)


@pytest.fixture(scope="module")
def service(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(image, tmp_path_factory.mktemp("container")) as found:
        yield found


def body(prompt: str) -> dict[str, object]:
    return {"base64Image": PICTURE, "prompt": prompt}


def test_the_image_says_how_it_runs(image: Image) -> None:
    config = image.config
    assert config["User"] == "1034:1034"
    assert list(config["ExposedPorts"]) == ["3303/tcp"]
    assert set(config["Volumes"]) == {"/app/model_cache", "/app/jobs"}
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["Cmd"][:3] == ["bentoml", "serve", "/app"]
    assert not config.get("Entrypoint")  # no shell between a signal and the supervisor
    assert {"MODEL_PATH=ByteDance/Sa2VA-1B", "BENTOML_CONTAINERIZED=true"} <= set(config["Env"])


def test_the_image_is_small_and_holds_no_build_tools(image: Image) -> None:
    print(f"image: {image.bytes / 1e9:.2f} GB")  # noqa: T201
    assert image.bytes < MOST_BYTES
    with image.mounted() as root:
        places = [root / folder for folder in ("usr/bin", "usr/local/bin", "opt/venv/bin")]
        assert [tool for tool in TOOLS for place in places if (place / tool).exists()] == []


def test_the_image_holds_a_bento_of_spec_2_and_what_is_locked(image: Image) -> None:
    with image.mounted() as root:
        assert yaml.safe_load((root / "app/bento.yaml").read_text())["spec"] == 2
        found = {path.name.removesuffix(".dist-info") for path in root.glob("opt/venv/lib/*/site-packages/*.dist-info")}
        assert not list((root / "app").rglob("*.bin"))
    installed = {name.lower().replace("_", "-"): version for name, _, version in (x.partition("-") for x in found)}
    assert installed.pop("torch").partition("+")[0] == pins(lock("cuda"))["torch"]
    locked = {name.lower().replace(".", "-"): version for name, version in pins(lock("serve")).items()}
    assert installed.items() <= locked.items()


def test_it_answers_a_question_and_finds_what_it_is_asked_for(service: Service) -> None:
    answer = service.client.post("/process", json=body("What color is the circle?")).json()
    assert answer["model"] == "sa2va-nano"
    picture = base64.b64encode((ROOT / "docs/shapes.png").read_bytes()).decode()
    asked = {"base64Image": picture, "prompt": "Please segment the red circle."}
    (segment,) = service.client.post("/process", json=asked).json()["segments"]
    assert int(coco.decode(segment["mask"]).sum()) == segment["area"] == pytest.approx(20_211, rel=0.02)


def test_the_health_check_passes(service: Service) -> None:
    _, *command = service.container.config["Healthcheck"]["Test"]
    port = httpx.URL(service.url).port
    assert service.container.execute([part.replace("3303", str(port)) for part in command]) == 0
    assert service.container.execute([part.replace("3303", "1") for part in command]) != 0


def test_bentomls_clients_speak_to_it(service: Service) -> None:
    asked: dict[str, Any] = body("What color is the circle?")
    client: Any
    with bentoml.SyncHTTPClient(service.url, server_ready_timeout=30) as client:
        assert client.process(**asked)["finish_reason"] == "stop"
        assert '"finish_reason":"stop"' in "".join(client.process_stream(**asked)).replace(" ", "")

    async def ask() -> dict[str, Any]:
        client: Any
        async with bentoml.AsyncHTTPClient(service.url, server_ready_timeout=30) as client:
            return await client.process(**asked)

    assert asyncio.run(ask())["finish_reason"] == "stop"


def test_sigterm_lets_what_runs_finish(image: Image, tmp_path: Path) -> None:
    """Six requests and a stream are under way; all are answered, and the container ends with 0."""
    with serving(image, tmp_path, SA2VA_THREADS="1") as service, ThreadPoolExecutor(7) as pool:
        answers = [pool.submit(httpx.post, f"{service.url}/process", json=body(REPLY), timeout=60) for _ in range(6)]
        begun = threading.Event()
        stream = pool.submit(_stream, service.url, begun)
        assert begun.wait(20)
        running = sum(not answer.done() for answer in answers)
        service.container.init.send_signal(signal.SIGTERM)
        assert not stream.done()
        assert running > 0
        assert [answer.result().status_code for answer in answers] == [200] * 6
        assert stream.result()[-1] == "done"
        assert service.container.process.wait(30) == 0


def _stream(url: str, begun: threading.Event) -> list[str]:
    names: list[str] = []
    with httpx.stream("POST", f"{url}/process_stream", json=body(REPLY), timeout=60) as response:
        for event in read_events(response.iter_lines()):
            names.append(event.name)
            begun.set()
    return names


def test_a_killed_worker_ends_the_container(image: Image, tmp_path: Path) -> None:
    """An orchestrator starts another one; a container whose worker is gone must not stay."""
    with serving(image, tmp_path) as service:
        workers = [child for child in service.container.init.children() if "--worker-id" in str(child.cmdline())]
        (workers or service.container.init.children())[-1].kill()
        assert service.container.process.wait(30) != 0
        assert "killed by SIGKILL" in service.container.output


def test_without_network_and_gpu_it_says_so_in_a_line_each(image: Image, tmp_path: Path) -> None:
    with run(image, tmp_path, {"SA2VA_API_KEYS": "none"}, network=False) as container:
        assert container.process.wait(60) == 1
    lines = container.output.splitlines()
    assert "Traceback" not in container.output
    assert len([line for line in lines if "no GPU is visible" in line]) == 1
    (last,) = (line for line in lines if line.startswith("sa2va: "))
    assert re.match("sa2va: model 'ByteDance/Sa2VA-1B' is not in the local cache, and the Hub can't be reached", last)


def test_a_volume_holds_the_weights(image: Image, tmp_path: Path) -> None:
    """As huggingface-hub lays them out; nothing is fetched, and nothing need be written there."""
    commit = "0" * 40
    model = tmp_path / "model_cache/models--ByteDance--Sa2VA-1B"
    snapshot = model / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for path in (ROOT / "sa2va_bento/nano").iterdir():
        (snapshot / path.name).write_bytes(path.read_bytes())
    (model / "refs").mkdir()
    (model / "refs/main").write_text(commit)
    model.parent.chmod(0o555)
    with serving(image, tmp_path, MODEL_PATH="ByteDance/Sa2VA-1B", HF_HUB_OFFLINE="1") as service:
        assert service.client.get("/health").json()["model_path"] == "ByteDance/Sa2VA-1B"


def test_a_wrong_setting_ends_it_in_one_line(image: Image, tmp_path: Path) -> None:
    begun = time.monotonic()
    with run(image, tmp_path, {**NANO, "SA2VA_SLOTS": "many"}) as container:
        assert container.process.wait(30) == 1
    assert time.monotonic() - begun < 20
    (line,) = (line for line in container.output.splitlines() if line.startswith("sa2va: "))
    assert "SA2VA_SLOTS" in line

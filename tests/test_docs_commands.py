"""The commands of the documentation, as they can be pasted, against a service with the embedded model."""

import base64
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.pictures import film
from sa2va_bento.settings import Settings
from sa2va_bento.web.runtime import load_predictor
from tests.serving import ROOT, server_of
from tests.test_docs import PAGES, blocks, named

ADDRESS = "http://localhost:3303"
ASKING = [(page, block) for page in PAGES for block in blocks(page, "bash") if "curl" in block and ADDRESS in block]
PROGRAMS = [(page, block) for page in PAGES for block in blocks(page, "python") if ADDRESS in block]
ALONE = [
    (page, block) for page in PAGES for block in blocks(page, "python") if "from sa2va_bento import Predictor" in block
]
TYPED = [(page, block) for page in PAGES for block in blocks(page, "bash") if block.startswith(".venv/bin/sa2va ")]
"""Without a server."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    jobs = tmp_path_factory.mktemp("jobs")
    model = load_predictor(Settings(jobs_dir=jobs))
    with server_of(model, SA2VA_JOBS_DIR=str(jobs)) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a newcomer stands: what commands write does not stay in the repository."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "clip.mp4").write_bytes(base64.b64decode(film(random.Random(1), frames=6)))
    return tmp_path


def run(command: list[str], folder: Path, text: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        input=text,
        text=True,
        capture_output=True,
        timeout=60,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_there_are_some() -> None:
    assert len(ASKING) >= 2
    assert len(PROGRAMS) >= 2


@pytest.mark.parametrize(("page", "block"), ASKING, ids=[named(page) for page, _ in ASKING])
def test_requests_are_answered(url: str, folder: Path, page: Path, block: str) -> None:
    said = run(["bash", "-euo", "pipefail"], folder, block.replace(ADDRESS, url))
    assert said
    assert '"error"' not in said


@pytest.mark.parametrize(("page", "block"), PROGRAMS, ids=[named(page) for page, _ in PROGRAMS])
def test_programs_run(url: str, folder: Path, page: Path, block: str) -> None:
    assert run([sys.executable, "-"], folder, block.replace(ADDRESS, url))


@pytest.mark.parametrize(("page", "block"), ALONE, ids=[named(page) for page, _ in ALONE])
def test_programs_run_without_a_server(folder: Path, page: Path, block: str) -> None:
    assert run([sys.executable, "-"], folder, block).startswith("Sure. (70, 80, 160, 160)")


@pytest.mark.parametrize(("page", "block"), TYPED, ids=[named(page) for page, _ in TYPED])
def test_commands_without_a_server(folder: Path, page: Path, block: str) -> None:
    run(["bash", "-euo", "pipefail"], folder, block.replace(".venv/bin/sa2va ", f"{sys.executable} -m sa2va_bento "))

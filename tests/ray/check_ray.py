"""`sa2va batch --ray` on a cluster of this machine: `make test-ray`. Ray is too large for everybody's tests."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests import films
from tests.serving import ROOT

RED = "Please segment the red circle."
ROWS = 400


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With two that are none."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, image in enumerate(films.frames(ROWS - 2, (160, 120))):
        image.save(folder / f"{number:03}.png")
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("hello")
    return folder


def command(pictures: Path, out: Path, *more: str) -> list[str]:
    asked = ["batch", str(pictures), "--prompt", RED, "--format", "masks", "--out", str(out), "--quiet"]
    return [sys.executable, "-m", "sa2va_bento", *asked, *more]


def files_of(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    subprocess.run(command(pictures, out), cwd=ROOT, check=True)
    assert len((out / "results.jsonl").read_text().splitlines()) == ROWS
    return out


def test_two_actors_write_the_same_files(pictures: Path, alone: Path, tmp_path: Path) -> None:
    subprocess.run(command(pictures, tmp_path, "--ray", "local", "--actors", "2"), cwd=ROOT, check=True)
    assert files_of(tmp_path) == files_of(alone)


def test_an_actor_that_is_killed_is_replaced(pictures: Path, alone: Path, tmp_path: Path) -> None:
    run = subprocess.Popen(command(pictures, tmp_path, "--ray", "local", "--actors", "2"), cwd=ROOT)
    results, deadline = tmp_path / "results.jsonl", time.monotonic() + 300
    while not (results.is_file() and results.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(_actors()[0], signal.SIGKILL)
    assert run.wait(300) == 0
    assert files_of(tmp_path) == files_of(alone)
    failed = [line for line in map(json.loads, results.read_text().splitlines()) if line["status"] == "failed"]
    assert [line["image"] for line in failed] == ["empty.png", "text.jpg"]


def _actors() -> list[int]:
    """The processes that have a model."""
    found = [(process.memory_info().rss, process.pid) for process in psutil.process_iter() if _is_actor(process)]
    assert found
    return [pid for _, pid in sorted(found, reverse=True)]


def _is_actor(process: psutil.Process) -> bool:
    try:
        return "ray::" in " ".join(process.cmdline()) and "Map" in " ".join(process.cmdline())
    except psutil.Error:
        return False

"""The image as `make image-test` builds it: for CPUs, by buildah, with the machine's own pip configuration."""

import shlex
import subprocess
import sys
from pathlib import Path

from tests.deploy.container import ENVIRONMENT, Image, buildah
from tests.serving import ROOT

BASE = "docker.io/library/python:3.11-slim-bookworm"
TAG = "localhost/sa2va-service:test"
IMAGES = ROOT / "deploy/image"
REGISTRY = ("index-url", "extra-index-url", "find-links", "cert", "trusted-host")
"""Options of pip that say where packages are."""


def build(folder: Path) -> Image:
    """Builds the image; `folder` is for what the build needs beside the working tree."""
    if not _has_base():
        subprocess.run([IMAGES / "base.sh", BASE], env=ENVIRONMENT, check=True)
    arguments = ["--build-arg", "TORCH=cpu", "--pull-never", *_pip_arguments(folder)]
    subprocess.run(
        [IMAGES / "build.sh", TAG, *arguments], env={**ENVIRONMENT, "ENGINE": "buildah"}, check=True, stdout=sys.stderr
    )
    return Image(TAG)


def _has_base() -> bool:
    """Whether the base is here, or can be fetched."""
    if buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        return True
    return subprocess.run(["buildah", "pull", "--quiet", BASE], env=ENVIRONMENT, check=False).returncode == 0


def _pip_arguments(folder: Path) -> list[str]:
    """What lets pip in the build find packages where pip here does: its options as a secret, and what they name of this
    machine mounted under `/run`."""
    options = {name: value for name, value in _pip_options().items() if name in REGISTRY and "file://" not in value}
    places = sorted(value for value in options.values() if Path(value).exists())
    written = folder / "pip.conf"
    lines = [f"{name} = /run{value}" if value in places else f"{name} = {value}" for name, value in options.items()]
    written.write_text("\n".join(["[global]", *lines]) + "\n")
    mounts = [f"--volume={place}:/run{place}:ro" for place in places]
    own_torch = ["--build-arg", "TORCH_CPU_INDEX="] if "find-links" in options else []
    return ["--secret", f"id=pip,src={written}", *mounts, *own_torch]


def _pip_options() -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, stdout=subprocess.PIPE, text=True
    )
    lines = [line.partition("=") for line in done.stdout.splitlines()]
    return {name.rpartition(".")[2]: shlex.split(value)[0].strip() for name, _, value in lines if value}

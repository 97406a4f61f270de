"""Containers without an engine: an image's root file system in namespaces of its own, as an engine would run it.

For machines on which buildah builds images (with chroot isolation) but nothing starts them. A container here has
processes of its own, of which the image's command is the first, mounts of its own and, if asked, no network; its user
has no capabilities, its root is read-only unless asked, with a tmpfs in `/tmp` and 64 MB in `/dev/shm`. Needs root.
"""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ENVIRONMENT = {"STORAGE_DRIVER": "overlay", "BUILDAH_ISOLATION": "chroot", **os.environ}


def buildah(*arguments: str) -> str:
    """What a buildah command prints."""
    done = subprocess.run(["buildah", *arguments], env=ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


@dataclass(frozen=True)
class Image:
    """An image in buildah's store."""

    name: str

    @property
    def config(self) -> dict[str, Any]:
        """What the image says of how it runs, in Docker's words."""
        return json.loads(buildah("inspect", "--type", "image", self.name))["Docker"]["config"]

    @property
    def bytes(self) -> int:
        """The size of all of its layers."""
        (found,) = json.loads(buildah("images", "--json", self.name))
        number, unit = found["size"].split()
        return int(float(number) * {"KB": 1e3, "MB": 1e6, "GB": 1e9}[unit])

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """The image's root file system, writable, as long as the block lasts."""
        name = buildah("from", "--pull-never", self.name)
        try:
            yield Path(buildah("mount", name))
        finally:
            buildah("rm", name)


@dataclass
class Container:
    """A container that runs, or has run."""

    process: subprocess.Popen[str]
    root: Path
    log: Path
    config: dict[str, Any] = field(repr=False)

    @property
    def init(self) -> psutil.Process:
        """The first process: what an engine sends signals to."""
        (first,) = psutil.Process(self.process.pid).children()
        return first

    @property
    def output(self) -> str:
        return self.log.read_text()

    def execute(self, command: list[str]) -> int:
        """The exit status of a command in the container, as of a health check."""
        inside = [
            "nsenter",
            "--target",
            str(self.init.pid),
            "--all",
            "--root",
            "env",
            "-i",
            *self.config["Env"],
            *command,
        ]
        return subprocess.run(inside, check=False).returncode

    def stop(self) -> None:
        """Ends whatever still runs."""
        if self.process.poll() is None:
            self.init.kill()
        self.process.wait(10)


@contextmanager
def run(
    image: Image,
    folder: Path,
    environment: Mapping[str, str],
    arguments: list[str] | None = None,
    *,
    network: bool = True,
    read_only: bool = True,
) -> Iterator[Container]:
    """A container of an image as long as the block lasts; its volumes and its log are in `folder`.

    Args:
        arguments: appended to the image's command.
    """
    config = image.config
    log = folder / "log"
    with image.mounted() as root, log.open("w") as output:
        script = _script(config, root, folder, environment, arguments or [], network, read_only)
        spaces = ["--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts", *([] if network else ["--net"])]
        process = subprocess.Popen(["unshare", *spaces, "sh", "-ec", script], stdout=output, stderr=output, text=True)
        container = Container(process, root, log, config)
        try:
            yield container
        finally:
            container.stop()


def _script(
    config: Mapping[str, Any],
    root: Path,
    folder: Path,
    environment: Mapping[str, str],
    arguments: list[str],
    network: bool,
    read_only: bool,
) -> str:
    user, _, group = config["User"].partition(":")
    variables = [*config["Env"], *(f"{name}={value}" for name, value in environment.items())]
    rights = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
    rights += ["--bounding-set=-all", "--inh-caps=-all"]
    command = ["chroot", str(root), "env", "-i", f"--chdir={config['WorkingDir']}", *variables, *rights]
    return "\n".join(
        [
            *([] if network else ["ip link set lo up"]),
            f"echo 127.0.0.1 localhost > {root}/etc/hosts",
            f"mount --bind {root} {root}",
            *([f"mount -o remount,bind,ro {root}"] if read_only else []),
            f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp",
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
            f"mount -t tmpfs -o mode=1777,size=64m tmpfs {root}/dev/shm",
            *_volumes(config, root, folder),
            f"exec {shlex.join([*command, *config['Cmd'], *arguments])}",
        ]
    )


def _volumes(config: Mapping[str, Any], root: Path, folder: Path) -> Iterator[str]:
    """Mounts for the image's volumes, each a folder that belongs to whom the image gave it."""
    for volume in config.get("Volumes") or ():
        inside = root / volume.lstrip("/")
        place = folder / inside.name
        place.mkdir(exist_ok=True)
        owner = inside.stat()
        os.chown(place, owner.st_uid, owner.st_gid)
        yield f"mount --bind {place} {inside}"

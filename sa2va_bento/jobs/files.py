"""A job's folder: its input, what was said and found so far, and its answer once it is complete.

`spoken.ndjson` and `frames.ndjson` grow while the job runs, a line an event and a line a frame. `answer.json` is
written last and in one step: with it, everything is there.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from sa2va_bento.errors import NoRoomError

Made = TypeVar("Made")

SPOKEN, FRAMES, ANSWER, INPUT, LOCK = "spoken.ndjson", "frames.ndjson", "answer.json", "input", "lock"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def room_needed() -> Iterator[None]:
    """Raises NoRoomError where the block runs into a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise NoRoomError("there is no room on the disk for jobs") from None
        raise


class JobFiles:
    """The folder of one job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def input(self) -> Path:
        """The folder of what was uploaded."""
        return self.folder / INPUT

    @property
    def frames(self) -> Path:
        return self.folder / FRAMES

    def make(self) -> None:
        with room_needed():
            self.input.mkdir(parents=True, exist_ok=True)

    def keep_input(self) -> None:
        """Sees to it that what was uploaded is on the disk. Raises NoRoomError."""
        with room_needed():
            for path in (*self.input.iterdir(), self.input, self.folder):
                _sync(path)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self) -> None:
        """Empties what an earlier attempt has left."""
        with room_needed():
            for name in (SPOKEN, FRAMES):
                (self.folder / name).write_bytes(b"")
            (self.folder / ANSWER).unlink(missing_ok=True)

    def line_log(self, name: str) -> BinaryIO:
        """A file to append lines to; each is there for readers once it is flushed."""
        return (self.folder / name).open("ab")

    def answer(self) -> dict[str, Any] | None:
        """The answer without its frames, once there is one."""
        try:
            return json.loads((self.folder / ANSWER).read_bytes())
        except FileNotFoundError:
            return None

    def complete(self, answer: Mapping[str, Any]) -> None:
        """Writes the answer: what was appended is on the disk before, and the answer is there whole or not at all."""
        with room_needed():
            for name in (SPOKEN, FRAMES):
                _sync(self.folder / name)
            draft = self.folder / (ANSWER + ".part")
            draft.write_text(json.dumps(answer), encoding="utf-8")
            _sync(draft)
            draft.replace(self.folder / ANSWER)
            _sync(self.folder)

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """A file that is made of the answer when it is first asked for, and kept."""
        path = self.folder / name
        if not path.exists():
            draft = self.folder / f"{name}.{os.getpid()}.part"
            with room_needed():
                try:
                    make(draft)
                    draft.replace(path)
                finally:
                    draft.unlink(missing_ok=True)
        return path

    def lines(self, name: str, start: int = 0) -> list[bytes]:
        """The whole lines of a log from number `start`; the last one may still be in the writing."""
        try:
            with (self.folder / name).open("rb") as file:
                return [line[:-1] for number, line in enumerate(file) if number >= start and line.endswith(b"\n")]
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def claimed(self) -> Iterator[bool]:
        """Whether the job is this process's to work on; the lock goes with the process, however that ends."""
        try:
            handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            yield False
            return
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(handle)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def folder_bytes(folder: Path) -> int:
    """Bytes that a folder's files take on the disk."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_blocks * 512
    return total

"""A video on disk as a clip whose frames are read on demand, by a process that can be stopped."""

import json
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from PIL import Image

from sa2va_bento.clips import ClipFrame
from sa2va_bento.errors import BadRequestError, DeadlineExceededError, PayloadTooLargeError, Sa2VAError
from sa2va_bento.media.videos import wire
from sa2va_bento.media.videos.kinds import HEAD, kind_of
from sa2va_bento.media.videos.limits import VideoInfo
from sa2va_bento.media.videos.reading import KINDS
from sa2va_bento.media.videos.selection import EVERY_FRAME, Selection

PIPE_BYTES = 2**20
"""What of a frame is on its way: the most that Linux lets everybody have."""


@dataclass(frozen=True)
class VideoLimits:
    """What reading a video may cost: pixels of a frame, frames that are looked at, seconds without a frame."""

    max_pixels: int
    max_frames: int
    patience_s: float = 30.0


@dataclass
class VideoFile:
    """The frames of a file that a selection takes. `info` is what the file says of itself, once it is being read;
    `damaged` counts what could not be decoded in the last reading.

    Raises:
        UnsupportedMediaError: a container or a codec that is not read.
        BadRequestError: no video, or a damaged one.
        PayloadTooLargeError: its frames are too large, or too many.
        DeadlineExceededError: reading takes too long.
    """

    path: Path
    limits: VideoLimits
    selection: Selection = EVERY_FRAME
    info: VideoInfo | None = field(default=None, init=False)
    damaged: int = field(default=0, init=False)
    _count: int | None = field(default=None, init=False)

    def frames(self) -> Generator[ClipFrame]:
        """As `sa2va_bento.clips.Clip`. The process ends with the iterator."""
        with _Reader(self, is_count=False) as reader:
            self.info = reader.info()
            for message in reader.messages():
                if message.kind == wire.DONE:
                    self._count, self.damaged = message.head["frames"], message.head["damaged"]
                    return
                head = message.head
                if head["index"] >= self.limits.max_frames:
                    raise _too_long(self.limits)
                image = Image.frombytes("RGB", tuple(head["size"]), message.data)
                yield ClipFrame(head["index"], head["source_index"], head["time_s"], image)

    def count(self) -> int:
        """As `sa2va_bento.clips.Clip`: decodes the file once, unless it was read to its end before."""
        if self._count is None:
            with _Reader(self, is_count=True) as reader:
                self.info = reader.info()
                done = next(reader.messages())
                self._count, self.damaged = int(done.head["frames"]), int(done.head["damaged"])
        if self._count > self.limits.max_frames:
            raise _too_long(self.limits)
        return self._count


class _Reader:
    """The reading process at work."""

    def __init__(self, video: VideoFile, is_count: bool) -> None:
        with video.path.open("rb") as file:
            kind = kind_of(file.read(HEAD))
        job = {
            "path": str(video.path),
            "demuxer": kind.demuxer,
            "name": kind.name,
            "max_pixels": video.limits.max_pixels,
            "selection": video.selection.to_dict(),
            "is_count": is_count,
        }
        self._patience_s = video.limits.patience_s * (20 if is_count else 1)
        self._is_late = False
        command = [sys.executable, "-m", "sa2va_bento.media.videos.reading", json.dumps(job)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pipesize=PIPE_BYTES
        )
        self._out = cast(BinaryIO, self._process.stdout)

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._out.close()
        self._process.wait()

    def info(self) -> VideoInfo:
        return VideoInfo(**self._next().head)

    def messages(self) -> Iterator[wire.Message]:
        while True:
            message = self._next()
            yield message
            if message.kind == wire.DONE:
                return

    def _next(self) -> wire.Message:
        """The next message that is no error. A process that keeps silent for too long is stopped."""
        watch = threading.Timer(self._patience_s, self._stop)
        watch.daemon = True
        watch.start()
        try:
            message = wire.read(self._out)
        finally:
            watch.cancel()
        if message is None:
            raise self._ended()
        if message.kind == wire.ERROR:
            raise KINDS.get(message.head["reason"], BadRequestError)(message.head["message"])
        return message

    def _stop(self) -> None:
        self._is_late = True
        with suppress(OSError):
            self._process.kill()

    def _ended(self) -> Sa2VAError:
        """Why there is no message."""
        if self._is_late:
            return DeadlineExceededError(f"video: no frame within {self._patience_s:g} s")
        return BadRequestError("video: damaged")


def _too_long(limits: VideoLimits) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"video: over {limits.max_frames} frames; give start_s and end_s, every_nth, fps or max_frames"
    )

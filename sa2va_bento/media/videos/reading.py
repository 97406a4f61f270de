"""The reading process: `python -m sa2va_bento.media.videos.reading JOB` writes a video's frames to standard output.

A process of its own since a file may make a decoder hang, eat memory, or crash: then this one ends, and nothing else.
It goes with its parent, and has limits of memory set before the file is opened. JOB is JSON.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO, Protocol

from PIL import Image

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError, Sa2VAError, UnsupportedMediaError
from sa2va_bento.media.videos import wire
from sa2va_bento.media.videos.limits import VideoInfo
from sa2va_bento.media.videos.selection import Selection, select

MEMORY_BYTES = 4 * 2**30
"""Address space of the process: its libraries take a tenth of it, a frame of 50 million pixels several times 150 MB."""
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG in linux/prctl.h

KINDS = {"bad_request": BadRequestError, "too_large": PayloadTooLargeError, "unsupported_media": UnsupportedMediaError}
"""How errors are called on the wire: by `Sa2VAError.reason`."""


class Source(Protocol):
    """An opened file of frames."""

    info: VideoInfo
    damaged: int

    def frames(self) -> Iterator[tuple[float | None, Image.Image]]: ...


def main() -> None:
    """Reads the job that the command line gives."""
    out = sys.stdout.buffer
    _confine()
    try:
        _read(json.loads(sys.argv[1]), out)
    except BrokenPipeError:
        os._exit(0)  # nobody reads any more
    except Sa2VAError as error:
        wire.write(out, wire.ERROR, {"reason": error.reason, "message": error.message})
    except MemoryError:
        message = "video: its frames take more memory than there is for them"
        wire.write(out, wire.ERROR, {"reason": PayloadTooLargeError.reason, "message": message})
    except Exception:  # decoders raise whatever their parsers run into
        wire.write(out, wire.ERROR, {"reason": BadRequestError.reason, "message": "video: damaged"})
    os._exit(0)  # without tearing down what a damaged file may have left in disorder


def _read(job: dict[str, Any], out: BinaryIO) -> None:
    source = _open(job["path"], job["demuxer"], job["name"], job["max_pixels"])
    wire.write(out, wire.INFO, source.info.to_dict())
    if job["is_count"]:
        frames = source.count() if hasattr(source, "count") else ((time_s, None) for time_s, _ in source.frames())
        found = sum(1 for _ in select(frames, Selection(**job["selection"])))
        wire.write(out, wire.DONE, {"frames": found, "damaged": source.damaged})
        return
    count = 0
    for frame in select(source.frames(), Selection(**job["selection"])):
        head = {
            "index": frame.index,
            "source_index": frame.source_index,
            "time_s": frame.time_s,
            "size": frame.picture.size,
        }
        wire.write(out, wire.FRAME, head, frame.picture.tobytes())
        count += 1
    wire.write(out, wire.DONE, {"frames": count, "damaged": source.damaged})


def _open(path: str, demuxer: str | None, name: str, max_pixels: int) -> Any:
    if demuxer is None:
        from sa2va_bento.media.videos.animations import Animation

        return Animation(path, name, max_pixels)
    import av.logging

    from sa2va_bento.media.videos.decoding import Video

    av.logging.set_level(None)
    return Video(path, demuxer, max_pixels)


def _confine() -> None:
    Image.MAX_IMAGE_PIXELS = None  # sizes are checked before Pillow decodes
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
    with suppress(OSError):
        os.nice(5)  # requests about pictures come first


if __name__ == "__main__":
    main()

"""A video followed in Python: what is asked about it, and how its answer travels from the thread that finds it."""

import queue
import threading
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from sa2va_bento.clips import ClipQuestion, ClipReply, ClipRequest, FrameSegments, FramesSeen
from sa2va_bento.errors import BadRequestError
from sa2va_bento.local.pictures import MOST_PIXELS
from sa2va_bento.media.videos.pictures import PictureSequence
from sa2va_bento.media.videos.selection import Selection
from sa2va_bento.media.videos.video_file import VideoFile, VideoLimits

MOST_WAITING = 1_000_000
"""Frames: a caller in the same process bounds them itself."""
ClipEvent = ClipReply | FrameSegments
AnyVideo = str | PathLike[str] | Sequence[str | PathLike[str]]
"""A file, or the files of its frames."""


class Watcher:
    """Passes a clip's answer on to the loop that reads it, and waits where that is slow."""

    def __init__(self, told: "queue.Queue[ClipEvent | BaseException | None]", stop: threading.Event) -> None:
        self._told, self._stop = told, stop

    def on_text(self, question: int, text: str) -> None: ...

    def on_reply(self, reply: ClipReply) -> None:
        put(self._told, reply, self._stop)

    def on_frame(self, frame: FrameSegments) -> None:
        put(self._told, frame, self._stop)


def put(told: "queue.Queue[Any]", item: object, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            return told.put(item, timeout=0.1)
        except queue.Full:
            continue


def clip_request(
    video: AnyVideo, prompts: tuple[str, ...], options: dict[str, Any], stop: threading.Event
) -> ClipRequest:
    if not prompts:
        raise BadRequestError("follow takes a video and at least one prompt")
    known = ("start_s", "end_s", "every_nth", "fps", "max_frames")
    selection = Selection(**{name: options.pop(name) for name in known if name in options})
    seen = options.pop("frames_seen", FramesSeen.MODEL)
    return ClipRequest(
        clip=_clip(video, selection),
        questions=tuple(ClipQuestion(prompt) for prompt in prompts),
        seen=FramesSeen(seen) if isinstance(seen, str) else tuple(seen),
        seen_count=options.pop("frames_seen_count", 5),
        is_cancelled=stop.is_set,
        selected=tuple(options.pop("selected", ())),
        **options,
    )


def _clip(video: AnyVideo, selection: Selection) -> VideoFile | PictureSequence:
    """Raises FileNotFoundError."""
    is_file = isinstance(video, str | PathLike)
    paths = tuple(Path(path).expanduser() for path in ((video,) if is_file else video))
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
    if is_file:
        return VideoFile(paths[0], VideoLimits(MOST_PIXELS, MOST_WAITING), selection)
    return PictureSequence(paths, MOST_PIXELS, selection)

"""Clips in memory, and a watcher that writes down what it is told."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from PIL import Image

from sa2va_bento.clips import ClipFrame, ClipReply, FrameSegments


@dataclass
class ListedClip:
    """The frames of a list; `read` counts how many were given out."""

    images: Sequence[Image.Image]
    read: int = 0

    def frames(self) -> Iterator[ClipFrame]:
        for index, image in enumerate(self.images):
            self.read += 1
            yield ClipFrame(index, index, index / 10, image)

    def count(self) -> int:
        return len(self.images)


@dataclass
class Notes:
    """What a watcher was told, in order."""

    texts: dict[int, str] = field(default_factory=dict)
    replies: list[ClipReply] = field(default_factory=list)
    frames: list[FrameSegments] = field(default_factory=list)

    def on_text(self, question: int, text: str) -> None:
        self.texts[question] = self.texts.get(question, "") + text

    def on_reply(self, reply: ClipReply) -> None:
        self.replies.append(reply)

    def on_frame(self, frame: FrameSegments) -> None:
        self.frames.append(frame)

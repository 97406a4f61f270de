"""The types of a clip that travel: what is asked of one, and what comes out, frame by frame.

A clip is never whole in memory: its frames are read as they are needed, and what was found on one is told and let go.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from PIL import Image

from sa2va_bento.types import FinishReason, RequestContext, Segment, Turn, Usage


@dataclass(frozen=True)
class ClipFrame:
    """A frame of a clip: its place among those that are looked at, from 0, its place in the file, the time at which it
    is shown (None where the file does not say), and the upright RGB picture."""

    index: int
    source_index: int
    time_s: float | None
    image: Image.Image


class Clip(Protocol):
    """Frames that can be read again from the first."""

    def frames(self) -> Iterator[ClipFrame]:
        """In order, all of one size. Few of them are alive at a time.

        Raises:
            Sa2VAError: the file is damaged, or reading it costs too much.
        """
        ...

    def count(self) -> int:
        """How many `frames` gives; may have to read all of them."""
        ...


class FramesSeen(StrEnum):
    """Which frames of a clip the language model sees, which are also those that the masks start from."""

    MODEL = "model"
    """As the checkpoint was trained: the first ones, for Sa2VA-i some that are spread evenly."""
    FIRST = "first"
    UNIFORM = "uniform"
    """Spread evenly from the first to the last."""


@dataclass(frozen=True)
class ClipQuestion:
    """One of the prompts about a clip, and the turns before it."""

    prompt: str
    history: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class ClipRequest:
    """What a caller asks about a clip. All questions share its frames, and all that they name is followed together.

    `seen` names a rule, or the very frames (by `ClipFrame.index`); `seen_count` is how many a rule shows at most.
    `is_cancelled` is asked between two frames, from any thread.
    """

    clip: Clip
    questions: tuple[ClipQuestion, ...]
    seen: FramesSeen | tuple[int, ...] = FramesSeen.MODEL
    seen_count: int = 5
    mode: str | None = None
    """How a checkpoint samples the clip that has several ways to; None is its usual one."""
    selected: tuple[int, ...] = ()
    """The frames that are sampled, in the mode that leaves them to others."""
    mask_threshold: float = 0.5
    soft_masks: bool = False
    max_new_tokens: int | None = None
    adapter: str | None = None
    """Name of the adapter that answers, None for the model itself."""
    is_cancelled: Callable[[], bool] = lambda: False
    context: RequestContext = field(default_factory=RequestContext, compare=False)


@dataclass(frozen=True)
class Track:
    """One `[SEG]` of the replies, followed through the clip. `id` counts over all replies; `phrase` and `text_span`
    are as in `Segment`."""

    id: int
    question: int
    phrase: str | None
    text_span: tuple[int, int] | None


@dataclass(frozen=True)
class ClipReply:
    """The reply to one of the questions; `result` keeps its markers, `text` does not."""

    question: int
    result: str
    text: str
    tracks: tuple[Track, ...]
    usage: Usage
    finish_reason: FinishReason


@dataclass(frozen=True)
class FrameSegments:
    """What was found on a frame: a segment for each track, in their order. Frames that the language model saw come
    first, the others after them in their order."""

    index: int
    source_index: int
    time_s: float | None
    size: tuple[int, int]
    segments: tuple[Segment, ...]


class ClipWatcher(Protocol):
    """Is told of an answer as it grows; one call at a time, none of them on the engine's thread but `on_text`."""

    def on_text(self, question: int, text: str) -> None:
        """Text that continues a reply. Must be quick and must not raise."""
        ...

    def on_reply(self, reply: ClipReply) -> None:
        """A reply is complete, and which tracks it asks for."""
        ...

    def on_frame(self, frame: FrameSegments) -> None:
        """The masks of a frame."""
        ...

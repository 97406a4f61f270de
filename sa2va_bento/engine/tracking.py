"""Tracking as a resumable stage: a clip joins the engine with the prompts of its objects, is fed frames as they are
read, and gives a frame's masks for a frame. A few frames a step, beside everybody else's decoding. No torch in here.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sa2va_bento.engine.sequence import MaskLogits
from sa2va_bento.errors import DeviceLostError, InferenceError, RequestCancelledError, Sa2VAError
from sa2va_bento.types import RequestContext

logger = logging.getLogger(__name__)

Leave = Callable[[Sa2VAError | None], None]

LONG = 10**9
"""Length of a clip whose end is not known: every pointer that attention can read is kept."""
FRAMES_TOGETHER = 4
"""Most frames of a clip that are encoded in one batch, where nobody else waits."""


@dataclass(frozen=True)
class FramePixels:
    """A frame as SAM2 reads it: its place in the clip, and pixels (3, S, S) float32."""

    index: int
    pixels: NDArray[np.float32]


@dataclass(eq=False)
class ClipTracking:
    """The objects of a clip on their way through it. `prompts` (B, d) are tensors of the runner's; `conditioning` are
    the frames that they are decoded on, which must be fed first. `on_frame` is told each frame's masks, one an object,
    on the engine's thread: it must be quick and must not raise.
    """

    prompts: Any
    conditioning: frozenset[int]
    on_frame: Callable[[int, tuple[MaskLogits, ...]], None]
    is_cancelled: Callable[[], bool] = lambda: False
    context: RequestContext = field(default_factory=RequestContext)
    length: int = LONG
    """Frames of the clip, where that is known to be few: SAM3 tells time by it."""
    parts: Callable[[int], tuple[int, ...]] | None = None
    """In place of `conditioning`: which of each object's prompts (B, P, d) a frame is decoded with; none where it is
    followed."""
    adapter: str | None = None
    """Name of the adapter whose SAM2 follows, None for the model's own."""
    leaves_memory: bool = True
    """Whether any frame is followed from those that have parts."""

    ready: deque[FramePixels] = field(default_factory=deque[FramePixels])
    """Read and not yet looked at."""
    is_fed: bool = False
    """No frame follows."""

    @property
    def is_finished(self) -> bool:
        return self.is_fed and not self.ready

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything for it."""
        return bool(self.ready) or self.is_fed or self.is_cancelled()

    def take(self, most: int) -> list[FramePixels]:
        """The next frames, up to `most`."""
        return [self.ready.popleft() for _ in range(min(most, len(self.ready)))]


class TimeShare:
    """Weighted fair queueing between clips and everybody else: while others have work, the time that clips have taken
    is at most `share` of all, but for the last batch of frames."""

    def __init__(self, share: float, clock: Callable[[], float]) -> None:
        self._credit_of_a_second, self._clock = share / (1 - share), clock
        self._credit, self._since = 0.0, clock()

    def may_run(self, others_wait: bool) -> bool:
        """Whether it is the clips' turn; to be asked once a step, after everybody else's part of it."""
        now = self._clock()
        earned = (now - self._since) * self._credit_of_a_second
        self._credit = min(0.0, self._credit + earned) if others_wait else 0.0
        self._since = now
        return self._credit >= 0

    def has_run(self) -> None:
        """The clips' turn is over; it began when `may_run` said so."""
        now = self._clock()
        self._credit -= now - self._since
        self._since = now


class ClipRunner(Protocol):
    """What the stage asks of the runner."""

    def track(self, clip: ClipTracking, frames: list[FramePixels]) -> list[tuple[MaskLogits, ...]]: ...

    def release_clip(self, clip: ClipTracking) -> None: ...

    def is_device_alive(self) -> bool: ...


class TrackingStage:
    """The clips that are in the engine; each leaves once."""

    def __init__(self, runner: ClipRunner, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._runner, self._share = runner, TimeShare(share, clock)
        self._clips: dict[ClipTracking, Leave] = {}

    @property
    def has_work(self) -> bool:
        return any(clip.has_work for clip in self._clips)

    def add(self, clip: ClipTracking, leave: Leave) -> None:
        self._clips[clip] = leave

    def step(self, others_wait: bool) -> None:
        """Looks at the next frame of each clip, or at several where nobody else waits.

        Raises:
            DeviceLostError: the device is gone.
        """
        self._let_go()
        ready = [clip for clip in self._clips if clip.ready]
        if not ready or not self._share.may_run(others_wait):
            return
        for clip in ready:
            self._advance(clip, 1 if others_wait else FRAMES_TOGETHER)
        self._share.has_run()
        self._let_go()

    def _let_go(self) -> None:
        for clip in list(self._clips):
            if clip.is_cancelled():
                self._leave(clip, RequestCancelledError("cancelled"))
            elif clip.is_finished:
                self._leave(clip, None)

    def _advance(self, clip: ClipTracking, most: int) -> None:
        frames = clip.take(most)
        try:
            found = self._runner.track(clip, frames)
        except Exception:
            logger.exception("request %s: tracking failed", clip.context.request_id)
        else:
            for frame, masks in zip(frames, found, strict=True):
                clip.on_frame(frame.index, masks)
            return
        # Out of the handler: an error at hand would keep the tensors of the failed step alive.
        if not self._runner.is_device_alive():
            raise DeviceLostError("the device is gone")
        self._leave(clip, InferenceError("the model failed on this clip"))

    def _leave(self, clip: ClipTracking, error: Sa2VAError | None) -> None:
        leave = self._clips.pop(clip)
        self._runner.release_clip(clip)
        leave(error)

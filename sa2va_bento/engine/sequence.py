"""A request's whole state while the engine works on it. No torch in here: tensors are the runner's business."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from sa2va_bento.result import FinishReason


class Status(Enum):
    WAITING = auto()
    RUNNING = auto()
    FINISHED = auto()


@dataclass(frozen=True)
class PictureInput:
    """A picture as the runner reads it: float32 arrays, see `sa2va_bento.preprocess.PreparedPicture`.

    `tiles` (N, 3, S, S), `sam_pixels` (3, M, M), `region_cells` a boolean (cells,) for each region.
    """

    tiles: NDArray[np.float32]
    sam_pixels: NDArray[np.float32]
    region_cells: tuple[NDArray[np.bool_], ...] = ()


@dataclass(frozen=True)
class MaskLogits:
    """What SAM2 says of one `[SEG]`: low-resolution logits (h, w) float32, predicted IoU, object score (0..1)."""

    logits: NDArray[np.float32]
    score: float
    object_score: float


@dataclass(frozen=True)
class Generation:
    """The engine's answer: reply ids without the stop token, one entry of `masks` a grounded `[SEG]`."""

    output_ids: tuple[int, ...]
    completion_tokens: int
    finish_reason: FinishReason
    masks: tuple[MaskLogits, ...]
    timings_ms: dict[str, float]


@dataclass
class Sequence:
    """One request on its way through the engine."""

    prompt_ids: tuple[int, ...]
    picture: PictureInput | None
    max_new_tokens: int
    stop_ids: frozenset[int]
    deadline: float = float("inf")
    """`time.monotonic()` value after which nobody waits for the answer."""
    is_cancelled: Callable[[], bool] = lambda: False

    status: Status = Status.WAITING
    output_ids: list[int] = field(default_factory=list)
    """Reply ids so far, the stop token included once it came."""
    masks: tuple[MaskLogits, ...] = ()
    created_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def is_stopped(self) -> bool:
        return bool(self.output_ids) and self.output_ids[-1] in self.stop_ids

    @property
    def is_complete(self) -> bool:
        return self.is_stopped or len(self.output_ids) >= self.max_new_tokens

    @property
    def is_expired(self) -> bool:
        return time.monotonic() > self.deadline

    @property
    def finish_reason(self) -> FinishReason:
        return "stop" if self.is_stopped else "length"

    def start(self) -> None:
        self.status, self.started_at = Status.RUNNING, time.monotonic()
        self.timings_ms["queue"] = 1e3 * (self.started_at - self.created_at)

    def spent(self, stage: str, seconds: float) -> None:
        """Adds to a stage's time."""
        self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + 1e3 * seconds

    def generation(self) -> Generation:
        """The finished answer."""
        reply = self.output_ids[:-1] if self.is_stopped else self.output_ids
        return Generation(tuple(reply), len(self.output_ids), self.finish_reason, self.masks, self.timings_ms)

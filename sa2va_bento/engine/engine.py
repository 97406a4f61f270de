"""Continuous batching, one step after the other: admit, encode, prefill, decode, ground, emit, track.

Knows scheduler and runner, no threads.
"""

import logging
from collections.abc import Callable
from typing import Any, Protocol

from sa2va_bento.engine.scheduler import Scheduler
from sa2va_bento.engine.sequence import Generation, MaskLogits, Sequence, Status
from sa2va_bento.engine.tracking import ClipTracking, FramePixels, TrackingStage
from sa2va_bento.errors import DeadlineExceededError, DeviceLostError, InferenceError, RequestCancelledError, Sa2VAError
from sa2va_bento.types import Stage

logger = logging.getLogger(__name__)

Outcome = Generation | Sa2VAError


class ModelRunner(Protocol):
    """What the engine asks of the runner; `sa2va_bento.engine.runner.Runner` is the real one. Every computing method
    takes a batch and may be called again with parts of it."""

    def load_prefixes(self, sequences: list[Sequence]) -> list[int]:
        """Looks the beginnings of prompts up in the prefix cache; how many tokens of each need not be read again."""
        ...

    def encode(self, sequences: list[Sequence]) -> None:
        """Makes the image tokens of the sequences' pictures."""
        ...

    def prefill(self, sequences: list[Sequence], most: int) -> list[int | None]:
        """Reads up to `most` tokens of each prompt; the reply's first token where the prompt is read to its end."""
        ...

    def decode(self, sequences: list[Sequence]) -> list[int]:
        """The next token of each reply."""
        ...

    def ground(self, sequences: list[Sequence]) -> list[tuple[MaskLogits, ...]]:
        """The masks of the `[SEG]`s that were read since the last time."""
        ...

    def take_prompts(self, sequence: Sequence) -> Any:
        """The prompts of the objects that a reply about a clip asks for."""
        ...

    def track(self, clip: ClipTracking, frames: list[FramePixels]) -> list[tuple[MaskLogits, ...]]:
        """The masks of a clip's objects on its next frames."""
        ...

    def reserve(self, sequence: Sequence, tokens: int) -> bool:
        """Sees to it that so many tokens of a sequence have room; False where there is none."""
        ...

    def preempt(self, sequence: Sequence) -> bool:
        """Takes the room of a sequence from it. Whether it can be read again without its picture being encoded."""
        ...

    def release(self, sequence: Sequence) -> None:
        """Frees what is held of a sequence. Never fails."""
        ...

    def release_clip(self, clip: ClipTracking) -> None:
        """Frees what is held of a clip. Never fails."""
        ...

    def is_device_alive(self) -> bool:
        """Whether the device still computes."""
        ...


class Observer:
    """Is told what the engine does; this one makes nothing of it."""

    def on_batch(self, stage: Stage, size: int) -> None:
        """A stage was computed for that many sequences together."""

    def on_preemption(self) -> None:
        """A sequence made room for an older one and waits to be read again."""

    def on_step(self, running: int, waiting: int) -> None:
        """A step has ended."""


class Engine:
    """Drives sequences to their end. Each sequence that leaves does so once, through `emit`."""

    def __init__(
        self,
        runner: ModelRunner,
        emit: Callable[[Sequence, Outcome], None],
        scheduler: Scheduler,
        observer: "Observer | None" = None,
    ) -> None:
        self.runner, self.scheduler, self._emit = runner, scheduler, emit
        self._observer = observer or Observer()
        self._tracking = TrackingStage(runner, scheduler.limits.clip_share)

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work or self._tracking.has_work

    def add(self, sequence: Sequence) -> None:
        self.scheduler.add(sequence)

    def add_clip(self, clip: ClipTracking, leave: Callable[[Sa2VAError | None], None]) -> None:
        """`leave` is told once that the clip is through, or what went wrong."""
        self._tracking.add(clip, leave)

    def step(self) -> None:
        """Advances every running sequence by a few tokens, and what has arrived by one batch.

        Raises:
            DeviceLostError: the device is gone, and with it everything that was running.
        """
        self._drop_abandoned()
        self.scheduler.admit(self.runner.reserve)
        self._batch(Stage.PREFILL, self.scheduler.to_look_up(), self._load_prefixes)
        self._batch(Stage.ENCODE, self.scheduler.to_encode(), self._encode)
        self._batch(Stage.PREFILL, self.scheduler.to_prefill(), self._prefill)
        for _ in range(self.scheduler.limits.decode_tokens):
            self._drop_abandoned()
            self._batch(Stage.DECODE, self._with_room(self.scheduler.to_decode()), self._decode)
        self._batch(Stage.SEGMENT, self.scheduler.to_ground(), self._ground)
        for sequence in self.scheduler.finished():
            if sequence.picture and sequence.picture.is_clip:
                sequence.prompts = self.runner.take_prompts(sequence)
            self._leave(sequence, sequence.generation())
        self._tracking.step(others_wait=self.scheduler.has_work)
        self._observer.on_step(len(self.scheduler.running), len(self.scheduler.waiting))

    def _drop_abandoned(self) -> None:
        for sequence in self.scheduler.abandoned():
            cancelled = sequence.is_cancelled()
            error = RequestCancelledError("cancelled") if cancelled else DeadlineExceededError("no answer in time")
            self._leave(sequence, error)

    def _with_room(self, sequences: list[Sequence]) -> list[Sequence]:
        """Those that have room for another token; the youngest make room for the oldest, and wait to be read again."""
        for sequence in sequences:
            while sequence.status is Status.RUNNING and not self.runner.reserve(sequence, sequence.length):
                preempted = self.scheduler.preempt_for(sequence)
                preempted.preempt(is_encoded=self.runner.preempt(preempted))
                self._observer.on_preemption()
        return [sequence for sequence in sequences if sequence.status is Status.RUNNING]

    def _load_prefixes(self, sequences: list[Sequence]) -> None:
        for sequence, tokens in zip(sequences, self.runner.load_prefixes(sequences), strict=True):
            sequence.skip(tokens)

    def _encode(self, sequences: list[Sequence]) -> None:
        self.runner.encode(sequences)
        for sequence in sequences:
            sequence.is_encoded = True

    def _prefill(self, sequences: list[Sequence]) -> None:
        most = self.scheduler.piece(len(sequences))
        for sequence, token in zip(sequences, self.runner.prefill(sequences, most), strict=True):
            sequence.prefilled += min(sequence.unread, most)
            if token is not None and not sequence.output_ids:
                sequence.append(token)

    def _decode(self, sequences: list[Sequence]) -> None:
        for sequence, token in zip(sequences, self.runner.decode(sequences), strict=True):
            sequence.append(token)

    def _ground(self, sequences: list[Sequence]) -> None:
        for sequence, masks in zip(sequences, self.runner.ground(sequences), strict=True):
            sequence.add_masks(masks)

    def _batch(self, stage: Stage, sequences: list[Sequence], compute: Callable[[list[Sequence]], None]) -> None:
        """Computes a stage for a batch. Where that fails (out of memory, above all) it is tried again in halves, and
        what fails alone has failed: no request suffers for another."""
        if not sequences:
            return
        for sequence in sequences:
            sequence.context.lap(Stage.QUEUE)
        try:
            compute(sequences)
        except Exception as error:
            self._note_failure(stage, sequences, error)
        else:
            for sequence in sequences:
                sequence.context.lap(stage)
            self._observer.on_batch(stage, len(sequences))
            return
        # Out of the handler: an error at hand would keep the tensors of the failed step alive.
        if not self.runner.is_device_alive():
            raise DeviceLostError("the device is gone")
        self._retry(stage, sequences, compute)

    def _note_failure(self, stage: Stage, sequences: list[Sequence], error: Exception) -> None:
        if len(sequences) == 1:
            logger.error("request %s: %s failed", sequences[0].context.request_id, stage, exc_info=error)
        else:
            ids = ", ".join(sequence.context.request_id for sequence in sequences)
            logger.warning("requests %s: %s failed for all, trying halves: %s", ids, stage, str(error))

    def _retry(self, stage: Stage, sequences: list[Sequence], compute: Callable[[list[Sequence]], None]) -> None:
        if len(sequences) == 1:
            self._leave(sequences[0], InferenceError("the model failed on this request"))
            return
        middle = len(sequences) // 2
        for half in (sequences[:middle], sequences[middle:]):
            self._batch(stage, [s for s in half if s.status is Status.RUNNING], compute)

    def _leave(self, sequence: Sequence, outcome: Outcome) -> None:
        self.scheduler.remove(sequence)
        self.runner.release(sequence)
        self._emit(sequence, outcome)

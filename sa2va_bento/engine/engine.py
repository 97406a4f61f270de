"""One step after the other: admit, encode, prefill, decode, ground, emit. Knows scheduler and runner, no threads."""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from sa2va_bento.engine.scheduler import Scheduler
from sa2va_bento.engine.sequence import Generation, MaskLogits, Sequence, Status
from sa2va_bento.errors import (
    DeadlineExceededError,
    DeviceLostError,
    InferenceError,
    RequestCancelledError,
    Sa2VAError,
)

logger = logging.getLogger(__name__)

Outcome = Generation | Sa2VAError


class ModelRunner(Protocol):
    """What the engine asks of the runner; `sa2va_bento.engine.runner.Runner` is the real one. Every computing method
    takes a batch and may be called again with parts of it."""

    def reuse(self, sequences: list[Sequence]) -> list[int]:
        """Takes over what was read for others; how many tokens of each prompt need not be read again."""
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

    def release(self, sequence: Sequence) -> None:
        """Frees what is held of a sequence. Never fails."""
        ...

    def is_device_alive(self) -> bool:
        """Whether the device still computes."""
        ...


class Engine:
    """Drives sequences to their end. Each sequence that leaves does so once, through `emit`."""

    def __init__(self, runner: ModelRunner, emit: Callable[[Sequence, Outcome], None], scheduler: Scheduler) -> None:
        self.runner, self.scheduler, self._emit = runner, scheduler, emit

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def add(self, sequence: Sequence) -> None:
        self.scheduler.add(sequence)

    def step(self) -> None:
        """Advances every running sequence by a few tokens, and what has arrived by one batch.

        Raises:
            DeviceLostError: the device is gone, and with it everything that was running.
        """
        self._drop_abandoned()
        self.scheduler.admit()
        self._batch("prefill", self.scheduler.to_reuse(), self._reuse)
        self._batch("prefill", self.scheduler.to_encode(), self._encode)
        self._batch("prefill", self.scheduler.to_prefill(), self._prefill)
        for _ in range(self.scheduler.limits.decode_tokens):
            self._drop_abandoned()
            self._batch("decode", self.scheduler.to_decode(), self._decode)
        self._batch("segment", self.scheduler.to_ground(), self._ground)
        for sequence in self.scheduler.finished():
            self._leave(sequence, sequence.generation())

    def _drop_abandoned(self) -> None:
        for sequence in self.scheduler.abandoned():
            cancelled = sequence.is_cancelled()
            error = RequestCancelledError("cancelled") if cancelled else DeadlineExceededError("no answer in time")
            self._leave(sequence, error)

    def _reuse(self, sequences: list[Sequence]) -> None:
        for sequence, tokens in zip(sequences, self.runner.reuse(sequences), strict=True):
            sequence.skip(tokens)

    def _encode(self, sequences: list[Sequence]) -> None:
        self.runner.encode(sequences)
        for sequence in sequences:
            sequence.is_encoded = True

    def _prefill(self, sequences: list[Sequence]) -> None:
        most = self.scheduler.limits.max_prefill
        for sequence, token in zip(sequences, self.runner.prefill(sequences, most), strict=True):
            sequence.prefilled += min(sequence.unread, most)
            if token is not None:
                sequence.append(token)

    def _decode(self, sequences: list[Sequence]) -> None:
        for sequence, token in zip(sequences, self.runner.decode(sequences), strict=True):
            sequence.append(token)

    def _ground(self, sequences: list[Sequence]) -> None:
        for sequence, masks in zip(sequences, self.runner.ground(sequences), strict=True):
            sequence.add_masks(masks)

    def _batch(self, stage: str, sequences: list[Sequence], compute: Callable[[list[Sequence]], None]) -> None:
        """Computes a stage for a batch. Where that fails (out of memory, above all) it is tried again in halves, and
        what fails alone has failed: no request suffers for another."""
        if not sequences:
            return
        start = time.perf_counter()
        try:
            compute(sequences)
        except Exception as error:
            self._note_failure(stage, sequences, error)
        else:
            for sequence in sequences:
                sequence.spent(stage, time.perf_counter() - start)
            return
        # Out of the handler: an error at hand would keep the tensors of the failed step alive.
        if not self.runner.is_device_alive():
            raise DeviceLostError("the device is gone")
        self._retry(stage, sequences, compute)

    def _note_failure(self, stage: str, sequences: list[Sequence], error: Exception) -> None:
        if len(sequences) == 1:
            logger.error("%s failed", stage, exc_info=error)
        else:
            logger.warning("%s of %d requests failed, trying halves: %s", stage, len(sequences), str(error))

    def _retry(self, stage: str, sequences: list[Sequence], compute: Callable[[list[Sequence]], None]) -> None:
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

"""One step after the other: admit, prefill, decode, ground, emit. Knows the scheduler and the runner, no threads."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from sa2va_bento.engine.scheduler import Scheduler
from sa2va_bento.engine.sequence import Generation, MaskLogits, Sequence, Status
from sa2va_bento.errors import DeadlineExceededError, InferenceError, RequestCancelledError, Sa2VAError

logger = logging.getLogger(__name__)


class ModelRunner(Protocol):
    """What the engine asks of the runner; `sa2va_bento.engine.runner.Runner` is the real one."""

    def prefill(self, sequence: Sequence) -> int: ...
    def decode(self, sequence: Sequence) -> int: ...
    def ground(self, sequence: Sequence) -> tuple[MaskLogits, ...]: ...
    def release(self, sequence: Sequence) -> None: ...


Outcome = Generation | Sa2VAError


class Engine:
    """Drives sequences to their end. Each sequence that leaves does so once, through `emit`."""

    def __init__(
        self, runner: ModelRunner, emit: Callable[[Sequence, Outcome], None], scheduler: Scheduler | None = None
    ) -> None:
        self.runner = runner
        self.scheduler = scheduler or Scheduler(max_running=1)
        self._emit = emit

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def add(self, sequence: Sequence) -> None:
        self.scheduler.add(sequence)

    def step(self) -> None:
        """Advances every running sequence by one token."""
        self._drop_abandoned()
        for sequence in self.scheduler.admit():
            self._advance(sequence, "prefill", self.runner.prefill)
        for sequence in tuple(self.scheduler.running):
            if not sequence.is_complete:
                self._advance(sequence, "decode", self.runner.decode)
        for sequence in tuple(self.scheduler.running):
            if sequence.is_complete:
                self._finish(sequence)

    def fail_all(self, error: Sa2VAError) -> None:
        """Ends whatever is waiting or running with an error."""
        for sequence in (*self.scheduler.waiting, *self.scheduler.running):
            self._leave(sequence, error)

    def _drop_abandoned(self) -> None:
        for sequence in self.scheduler.drop_abandoned():
            cancelled = sequence.is_cancelled()
            self._leave(sequence, RequestCancelledError("cancelled") if cancelled else DeadlineExceededError("timeout"))

    def _advance(self, sequence: Sequence, stage: str, compute: Callable[[Sequence], int]) -> None:
        with self._stage(sequence, stage):
            sequence.output_ids.append(compute(sequence))

    def _finish(self, sequence: Sequence) -> None:
        with self._stage(sequence, "segment"):
            sequence.masks = self.runner.ground(sequence)
        if sequence.status is Status.RUNNING:
            self._leave(sequence, sequence.generation())

    def _leave(self, sequence: Sequence, outcome: Outcome) -> None:
        self.scheduler.remove(sequence)
        self.runner.release(sequence)
        self._emit(sequence, outcome)

    @contextmanager
    def _stage(self, sequence: Sequence, name: str) -> Iterator[None]:
        """Times a stage of one sequence; an error in it ends that sequence and no other."""
        start = time.perf_counter()
        try:
            yield
        except Exception:
            logger.exception("%s failed", name)
            self._leave(sequence, InferenceError("the model failed on this request"))
        finally:
            sequence.spent(name, time.perf_counter() - start)

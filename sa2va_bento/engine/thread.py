"""The engine's own thread: one queue in, one future a request or clip out. Nothing else runs the model."""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any

from sa2va_bento.engine.engine import Engine, ModelRunner, Observer, Outcome
from sa2va_bento.engine.scheduler import Scheduler
from sa2va_bento.engine.sequence import Generation, Sequence
from sa2va_bento.engine.tracking import ClipTracking, FramePixels
from sa2va_bento.errors import DeviceLostError, InferenceError, NotReadyError, Sa2VAError

logger = logging.getLogger(__name__)


class EngineThread:
    """Runs an engine until it is closed. Every accepted sequence's future is resolved, whatever happens."""

    def __init__(self, runner: ModelRunner, scheduler: Scheduler, observer: Observer | None = None) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._futures: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._engine = Engine(runner, self._resolve, scheduler, observer)
        self._thread = threading.Thread(target=self._run, name="sa2va-engine", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._closed

    def submit(self, sequence: Sequence) -> "Future[Generation]":
        """Hands a sequence to the engine.

        Raises:
            NotReadyError: the engine has stopped.
        """
        future: Future[Generation] = Future()
        with self._lock:
            if not self.is_alive:
                raise NotReadyError("the engine has stopped")
            self._futures[id(sequence)] = future
            self._inbox.put(lambda: self._engine.add(sequence))
        return future

    def track(self, clip: ClipTracking) -> "Future[None]":
        """Hands a clip to the engine, which waits for its frames. The future is done when it is through.

        Raises:
            NotReadyError: the engine has stopped.
        """
        future: Future[None] = Future()
        with self._lock:
            if not self.is_alive:
                raise NotReadyError("the engine has stopped")
            self._futures[id(clip)] = future
            self._inbox.put(lambda: self._engine.add_clip(clip, lambda error: self._settle_next(id(clip), error)))
        return future

    def feed(self, clip: ClipTracking, frame: FramePixels | None) -> None:
        """The next frame of a clip; None after the last."""
        if frame is None:
            self._inbox.put(lambda: setattr(clip, "is_fed", True))
        else:
            self._inbox.put(lambda: clip.ready.append(frame))

    def close(self, timeout_s: float = 10.0) -> None:
        """Stops after the current step; whatever is unfinished fails with NotReadyError."""
        with self._lock:
            self._closed = True
            self._inbox.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        reason: Sa2VAError = NotReadyError("the service is shutting down")
        try:
            while self._take():
                if self._engine.has_work:
                    self._engine.step()
        except DeviceLostError as error:
            logger.exception("the engine stopped")
            reason = error
        except Exception:  # the engine isolates requests; what reaches this line is a broken engine
            logger.exception("the engine stopped")
            reason = InferenceError("the engine stopped")
        finally:
            self._end(reason)

    def _take(self) -> bool:
        """Moves what has arrived into the engine; sleeps only when there is nothing to do. False: time to stop."""
        while True:
            try:
                arrived = self._inbox.get(block=not self._engine.has_work)
            except queue.Empty:
                return True
            if arrived is None:
                return False
            arrived()

    def _end(self, reason: Sa2VAError) -> None:
        """Fails whatever is waiting or running. The runner is not asked to free anything: its device may be gone."""
        with self._lock:
            self._closed = True
            while self._futures:
                _, future = self._futures.popitem()
                _settle(future, reason)

    def _resolve(self, sequence: Sequence, outcome: Outcome) -> None:
        self._settle_next(id(sequence), outcome)

    def _settle_next(self, number: int, outcome: Outcome | None) -> None:
        future = self._futures.pop(number, None)
        if future:
            _settle(future, outcome)


def _settle(future: "Future[Any]", outcome: Outcome | None) -> None:
    try:
        if isinstance(outcome, Sa2VAError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    except InvalidStateError:  # cancelled meanwhile: nobody listens
        pass

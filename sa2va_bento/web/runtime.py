"""What lives as long as a worker process: the settings, the model, and since when."""

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NoReturn, Protocol, TypeVar

from sa2va_bento.clips import ClipRequest, ClipWatcher
from sa2va_bento.errors import NotReadyError, PayloadTooLargeError, Sa2VAError, StartupError
from sa2va_bento.jobs.desk import JobDesk
from sa2va_bento.settings import Settings
from sa2va_bento.types import Exchange, Prediction, PredictRequest, RequestContext, StreamEvent
from sa2va_bento.web import startup

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
Rendered = TypeVar("Rendered")


class Model(Protocol):
    """What the service needs of a loaded model; `sa2va_bento.predictor.Predictor` is one."""

    def answer(self, exchange: Exchange[Rendered]) -> "Future[Rendered]": ...

    def answer_clip(self, request: ClipRequest, watcher: ClipWatcher) -> None: ...

    def check_room(self, left_s: float, coming: int = 0) -> None: ...

    def in_worker(self, work: Callable[[], Made]) -> "Future[Made]": ...

    def close(self) -> None: ...

    @property
    def is_ready(self) -> bool: ...

    @property
    def is_alive(self) -> bool: ...

    @property
    def queue_depth(self) -> int: ...

    @property
    def info(self) -> dict[str, str]: ...


def load_predictor(settings: Settings) -> Model:
    """Loads the model and has it answer once: what can't, for want of memory say, must not call itself ready. Raises
    StartupError."""
    from sa2va_bento.predictor import WARM_UP, Predictor

    predictor = Predictor.load(settings)
    try:
        _prove(predictor, WARM_UP)
    except BaseException:
        predictor.close()
        raise
    return predictor


def _prove(model: Model, question: PredictRequest) -> None:
    """Asks about a picture or, where one is more than the context holds, without."""
    failure = model.answer(_Trial(question)).exception()
    if isinstance(failure, PayloadTooLargeError):
        failure = model.answer(_Trial(replace(question, image=None))).exception()
    if not isinstance(failure, _AnsweredError):
        raise StartupError(f"the model is loaded, but fails to answer: {failure}")


class _AnsweredError(Sa2VAError):
    """There was an answer, and nobody to have it: it does not count in the metrics."""


class _Trial:
    """The exchange of a question that only shows whether questions are answered."""

    def __init__(self, question: PredictRequest) -> None:
        self.context, self._question = RequestContext(), question

    def read(self) -> PredictRequest:
        return self._question

    def begin(self) -> bool:
        return False

    def tell(self, event: StreamEvent) -> None: ...

    def render(self, prediction: Prediction) -> NoReturn:
        raise _AnsweredError("answered")


class Runtime:
    """Loads the model on a thread of its own, so that the socket answers meanwhile, and knows how far it is. Under a
    supervisor it has the process end when that can't answer any more: the supervisor starts another."""

    SWITCH_S = 0.0001
    """After which a thread gives Python to another that waits for it. The engine lets go of it at each of its many
    short operations: beside a thread that computes in Python, 300 of them take 65 ms, with 1 ms here 490, with Python's
    own 5 ms 4 s, and the event loop, too, waits longer under load than it works."""
    WATCH_S = 0.5
    """Between two looks at the engine and the supervisor."""
    SHORT_GRACE_S = 5.0
    """For the requests at hand when the worker is broken: until it has ended nobody is answered."""
    HANGS_S = 20.0
    """After the grace; a process that has not stopped by then never will."""

    def __init__(self, settings: Settings, load: Callable[[Settings], Model] = load_predictor) -> None:
        self.settings = settings
        self.load = load
        self.started_at = datetime.now().replace(microsecond=0)
        self._started = time.monotonic()
        self._model: Model | None = None
        self._jobs: JobDesk | None = None
        self._failure: str | None = None
        self._closed = threading.Event()
        self._broken: str | None = None
        self._must_end = threading.Event()
        self.grace_s = settings.shutdown_grace_s
        """Seconds that the requests at hand have when the process is to stop."""
        self.is_draining = False
        """Whether the process is to stop: what runs is finished, and nothing begun."""

    def start(self) -> None:
        """Begins to load the model and returns."""
        sys.setswitchinterval(self.SWITCH_S)
        threading.Thread(target=self._load, name="sa2va-load", daemon=True).start()
        if startup.has_supervisor():
            threading.Thread(target=self._watch, name="sa2va-watch", daemon=True).start()

    def drain(self) -> None:
        """From now on no request is begun. A signal handler may call it."""
        self.is_draining = True

    def close(self) -> None:
        """Stops the model and its threads; requests under way fail with NotReadyError."""
        self._closed.set()
        if self._jobs is not None:
            self._jobs.close()
        if self._model is not None:
            self._model.close()

    def out_of_memory(self) -> None:
        """To be called, from any thread, when memory could not be had: the worker ends once the requests at hand had
        their answers, since it may have lost a thread or a lock, and another takes its place."""
        self._end("out of memory", self.SHORT_GRACE_S)

    @property
    def model(self) -> Model:
        """The loaded model. Raises NotReadyError before that, after a failure, and when the process is to stop."""
        if self.is_draining:
            raise NotReadyError("the service is shutting down")
        if self._model is None:
            raise NotReadyError(self._failure or "the model is still loading")
        if not self._model.is_ready:
            raise NotReadyError("the model has stopped")
        return self._model

    @property
    def jobs(self) -> JobDesk:
        """Where video jobs are handed in. Raises NotReadyError as `model` does, and where they can't be kept."""
        if not self.is_draining and self._jobs is not None:
            return self._jobs
        assert self.model is not None
        raise NotReadyError("video jobs can't be kept here: SA2VA_JOBS_DIR can't be written")

    @property
    def is_ready(self) -> bool:
        return not self.is_draining and self._model is not None and self._model.is_ready

    @property
    def is_alive(self) -> bool:
        """False once loading has failed or the model's thread has died; loading is alive."""
        return self._failure is None and (self._model is None or self._model.is_alive)

    @property
    def uptime(self) -> timedelta:
        """Since the start, in whole seconds."""
        return timedelta(seconds=int(time.monotonic() - self._started))

    def _load(self) -> None:
        begun = time.monotonic()
        try:
            with _uncollected():
                model = self.load(self.settings)
        except StartupError as error:
            return self._fail(error.message)
        except Exception:
            if self._closed.is_set():  # nobody waits for it any more
                return None
            logger.exception("loading the model failed")
            return self._fail("loading the model failed; the log above says where")
        if self._closed.is_set():
            return model.close()
        _spare_the_collector()
        self._model, self._jobs = model, self._open_jobs(model)
        startup.note_ready()
        logger.info("model %s is ready after %.1f s", self.settings.model_name, time.monotonic() - begun)

    def _open_jobs(self, model: Model) -> JobDesk | None:
        """None where there is no folder for them: pictures are answered all the same."""
        try:
            return JobDesk(model, self.settings)
        except StartupError as error:
            logger.warning("%s", error.message)
            return None

    def _fail(self, message: str) -> None:
        self._failure = "the model could not be loaded"
        if not self.is_draining:  # who stops it does not want to know
            startup.give_up(message)

    def _watch(self) -> None:
        """Until the process is to stop, by itself or because it was told; then sees to it that it does."""
        while not self._must_end.wait(self.WATCH_S) and not self.is_draining:
            if startup.is_orphan():
                self._end("the supervisor has gone", self.grace_s)
            elif self._model is not None and not self._model.is_alive:
                self._end("the engine has stopped", self.SHORT_GRACE_S)
        if self._broken:
            startup.stop_this_process(self._broken)
        startup.end_this_process(self.grace_s + self.HANGS_S)

    def _end(self, reason: str, grace_s: float) -> None:
        if not self._must_end.is_set():  # the first reason counts
            self._broken, self.grace_s = reason, grace_s
            self._must_end.set()


@contextmanager
def _uncollected() -> Generator[None]:
    """Without garbage collection: while libraries are imported it finds nothing, and takes 0.7 s of the start."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _spare_the_collector() -> None:
    """Leaves out of every later garbage collection what lives as long as the process: with a model and its libraries
    loaded, one full collection would stop all threads for a third of a second. None is made here either: the garbage
    that imports leave behind is too little to show in the resident memory."""
    gc.freeze()

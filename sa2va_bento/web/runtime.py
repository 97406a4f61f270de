"""What lives as long as a worker process: the settings, the model, and since when."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from sa2va_bento.errors import NotReadyError, StartupError
from sa2va_bento.settings import Settings
from sa2va_bento.types import Exchange
from sa2va_bento.web import startup

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
Rendered = TypeVar("Rendered")


class Model(Protocol):
    """What the service needs of a loaded model; `sa2va_bento.predictor.Predictor` is one."""

    def answer(self, exchange: Exchange[Rendered]) -> "Future[Rendered]": ...

    def check_room(self, left_s: float) -> None: ...

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
    """Loads the model. Raises StartupError."""
    from sa2va_bento.predictor import Predictor

    return Predictor.load(settings)


class Runtime:
    """Loads the model on a thread of its own, so that the socket answers meanwhile, and knows how far it is."""

    def __init__(self, settings: Settings, load: Callable[[Settings], Model] = load_predictor) -> None:
        self.settings = settings
        self.load = load
        self.started_at = datetime.now().replace(microsecond=0)
        self._started = time.monotonic()
        self._model: Model | None = None
        self._failure: str | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Begins to load the model and returns."""
        threading.Thread(target=self._load, name="sa2va-load", daemon=True).start()

    def close(self) -> None:
        """Stops the model and its threads; requests under way fail with NotReadyError."""
        self._closed.set()
        if self._model is not None:
            self._model.close()

    @property
    def model(self) -> Model:
        """The loaded model. Raises NotReadyError before that, and after a failure."""
        if self._model is None:
            raise NotReadyError(self._failure or "the model is still loading")
        if not self._model.is_ready:
            raise NotReadyError("the model has stopped")
        return self._model

    @property
    def is_ready(self) -> bool:
        return self._model is not None and self._model.is_ready

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
            logger.exception("loading the model failed")
            return self._fail("loading the model failed; the log above says where")
        if self._closed.is_set():
            return model.close()
        _spare_the_collector()
        self._model = model
        logger.info("model %s is ready after %.1f s", self.settings.model_name, time.monotonic() - begun)

    def _fail(self, message: str) -> None:
        self._failure = "the model could not be loaded"
        startup.give_up(message)


@contextmanager
def _uncollected() -> Iterator[None]:
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

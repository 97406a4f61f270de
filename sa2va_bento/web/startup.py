"""How a start that can't succeed ends: one line on stderr and a non-zero exit of `bentoml serve`.

`bentoml serve` is a supervisor and a worker process. The supervisor restarts a dead worker for ever, so a worker
that can't load its model tells the supervisor to leave first.
"""

import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from bentoml._internal.configuration.containers import BentoMLContainer

from sa2va_bento.errors import StartupError
from sa2va_bento.settings import Settings, load_settings

SUPERVISOR = "SA2VA_SUPERVISOR_PID"
"""Environment variable through which a worker knows a supervisor that listens."""


def settings_or_exit() -> Settings:
    """The settings, or the end of the process with one line when the environment makes no sense."""
    try:
        return load_settings()
    except StartupError as error:
        sys.exit(f"sa2va: {error.message}")


def configure_logging(level: str) -> None:
    """Sets how much the package logs; BentoML's handlers write it."""
    logging.getLogger("sa2va_bento").setLevel(level)


def leave_tracing_out() -> None:
    """Spares requests the spans that BentoML makes of each of their messages even where nobody has configured tracing.
    To be called before its app is made."""
    if not _sample_rate():
        os.environ.setdefault("OTEL_SDK_DISABLED", "true")


def _sample_rate() -> float | None:
    return BentoMLContainer.tracing.sample_rate.get()


def listen_for_failure() -> None:
    """In the supervisor, before its workers start: leave with status 1 when one of them asks for it."""
    signal.signal(signal.SIGUSR1, _leave)
    os.environ[SUPERVISOR] = str(os.getpid())


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(1)


def give_up(message: str) -> None:
    """In a worker: says why on stderr and ends the service. Without a supervisor it only says so."""
    print(f"sa2va: {message}", file=sys.stderr, flush=True)  # noqa: T201 - the operator's line
    if os.environ.get(SUPERVISOR) == str(os.getppid()):
        os.kill(os.getppid(), signal.SIGUSR1)
        os._exit(1)

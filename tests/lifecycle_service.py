"""`service.py` around a model that isn't one, and that signals to the worker hold up and break:
`bentoml serve tests.lifecycle_service:Sa2VA`."""

import functools
import signal

from bentoml._internal.utils import circus

from service import Sa2VA, runtime
from tests.fakes import FakePredictor

__all__ = ["Sa2VA"]

HOLD, BREAK, EXHAUST = signal.SIGUSR2, signal.SIGUSR1, signal.SIGHUP
"""Requests wait until it comes again; the engine has ended; memory has run out."""

model = FakePredictor()
runtime.load = lambda _: model
circus.create_standalone_arbiter = functools.partial(circus.create_standalone_arbiter, check_delay=1)  # not 10 s


def _hold(*_: object) -> None:
    model.gate.clear() if model.gate.is_set() else model.gate.set()


def _break(*_: object) -> None:
    model.is_ready = model.is_alive = False


signal.signal(HOLD, _hold)
signal.signal(BREAK, _break)
signal.signal(EXHAUST, lambda *_: runtime.out_of_memory())

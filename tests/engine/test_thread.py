"""The engine's thread: every future is resolved, whatever happens."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait

import pytest

from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.scheduler import Scheduler
from sa2va_bento.engine.sequence import Generation, Sequence
from sa2va_bento.engine.thread import EngineThread
from sa2va_bento.errors import DeviceLostError, InferenceError, NotReadyError
from tests.fake_runner import BAD, CountingRunner, sequence


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


@pytest.fixture
def thread(gate: threading.Event) -> Iterator[EngineThread]:
    started = EngineThread(CountingRunner(lambda: gate.wait(10)), Scheduler(Limits()))
    yield started
    gate.set()
    started.close()


def test_every_future_is_resolved(thread: EngineThread, gate: threading.Event) -> None:
    gate.set()
    futures = [thread.submit(sequence(n % 9)) for n in range(200)]
    wait(futures, timeout=10)
    assert [len(future.result().output_ids) for future in futures] == [n % 9 for n in range(200)]


def test_a_cancelled_future_is_no_accident(thread: EngineThread, gate: threading.Event) -> None:
    first, second = thread.submit(sequence(3)), thread.submit(sequence(4))
    assert second.cancel()
    gate.set()
    assert first.result(10).output_ids == (3, 2, 1)
    assert thread.submit(sequence(1)).result(10).output_ids == (1,)


def test_closing_fails_what_is_unfinished_and_refuses_later_ones(thread: EngineThread, gate: threading.Event) -> None:
    unfinished: list[Future[Generation]] = [thread.submit(sequence(1000)) for _ in range(3)]
    closer = threading.Thread(target=thread.close)
    closer.start()
    while thread.is_alive:
        time.sleep(0.001)
    with pytest.raises(NotReadyError):
        thread.submit(sequence(1))
    gate.set()
    closer.join(15)
    for future in unfinished:
        assert isinstance(future.exception(10), NotReadyError)


def test_a_device_that_is_gone_ends_the_thread_and_all_it_had(gate: threading.Event) -> None:
    class Gone(CountingRunner):
        def prefill(self, sequences: list[Sequence], most: int) -> list[int | None]:
            gate.wait(10)
            return super().prefill(sequences, most)

        def release(self, sequence: Sequence) -> None:
            raise RuntimeError("CUDA error: device-side assert triggered")

    runner = Gone()
    runner.alive = False
    thread = EngineThread(runner, Scheduler(Limits()))
    futures = [thread.submit(sequence(first)) for first in (50, 40, BAD, 30)]
    gate.set()
    for future in futures:
        assert isinstance(future.exception(10), DeviceLostError)
    while thread.is_alive:  # what `/livez` asks
        time.sleep(0.001)
    with pytest.raises(NotReadyError):
        thread.submit(sequence(1))


def test_a_broken_engine_resolves_what_it_had(gate: threading.Event) -> None:
    class Broken(CountingRunner):
        def release(self, sequence: Sequence) -> None:
            raise MemoryError("the device is gone")

    thread = EngineThread(Broken(lambda: gate.wait(10)), Scheduler(Limits()))
    futures = [thread.submit(sequence(first)) for first in (2, 50, 40)]
    gate.set()
    for future in futures:
        assert isinstance(future.exception(10), InferenceError)
    with pytest.raises(NotReadyError):
        thread.submit(sequence(1))

"""The engine, its thread and the scheduler, with a runner that computes nothing: everything here takes milliseconds."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait

import pytest

from sa2va_bento.engine.bridge import EngineThread
from sa2va_bento.engine.engine import Engine, Outcome
from sa2va_bento.engine.scheduler import Scheduler
from sa2va_bento.engine.sequence import Generation, MaskLogits, Sequence, Status
from sa2va_bento.errors import DeadlineExceededError, InferenceError, NotReadyError, RequestCancelledError

STOP, BAD, SEG = 0, -1, 7


class CountingRunner:
    """Replies prompt[0], prompt[0] - 1, ... 0 (the stop token). A prompt that starts with BAD fails."""

    def __init__(self, on_step: Callable[[], object] = lambda: None) -> None:
        self.held: set[int] = set()
        self.prefilled: list[int] = []
        self.on_step = on_step

    def prefill(self, sequence: Sequence) -> int:
        self.held.add(id(sequence))
        self.prefilled.append(sequence.prompt_ids[0])
        if sequence.prompt_ids[0] == BAD:
            raise RuntimeError("boom")
        return sequence.prompt_ids[0]

    def decode(self, sequence: Sequence) -> int:
        self.on_step()
        return sequence.output_ids[-1] - 1

    def ground(self, sequence: Sequence) -> tuple[MaskLogits, ...]:
        if SEG in sequence.output_ids[:-1] and sequence.prompt_ids[1:] == (BAD,):
            raise RuntimeError("no masks today")
        return ()

    def release(self, sequence: Sequence) -> None:
        self.held.discard(id(sequence))


def sequence(*prompt: int, max_new_tokens: int = 100, **options: object) -> Sequence:
    return Sequence(prompt, None, max_new_tokens, frozenset({STOP}), **options)  # type: ignore[arg-type]


class Bench:
    """An engine without a thread, and what it emitted."""

    def __init__(self, max_running: int = 1) -> None:
        self.runner = CountingRunner()
        self.emitted: list[tuple[Sequence, Outcome]] = []
        emit = lambda sequence, outcome: self.emitted.append((sequence, outcome))  # noqa: E731
        self.engine = Engine(self.runner, emit, Scheduler(max_running))

    def run(self, *sequences: Sequence) -> list[Outcome]:
        for item in sequences:
            self.engine.add(item)
        while self.engine.has_work:
            self.engine.step()
        assert not self.runner.held
        outcomes = {id(sequence): outcome for sequence, outcome in self.emitted}
        return [outcomes[id(item)] for item in sequences]


def test_a_reply_ends_at_the_stop_token() -> None:
    (outcome,) = Bench().run(sequence(3))
    assert isinstance(outcome, Generation)
    assert (outcome.output_ids, outcome.finish_reason, outcome.completion_tokens) == ((3, 2, 1), "stop", 4)


def test_a_reply_ends_at_its_limit() -> None:
    (outcome,) = Bench().run(sequence(9, max_new_tokens=2))
    assert isinstance(outcome, Generation)
    assert (outcome.output_ids, outcome.finish_reason) == ((9, 8), "length")


def test_a_reply_may_be_empty() -> None:
    (outcome,) = Bench().run(sequence(STOP))
    assert isinstance(outcome, Generation)
    assert (outcome.output_ids, outcome.finish_reason) == ((), "stop")


@pytest.mark.parametrize("max_running", [1, 3])
def test_a_request_that_fails_fails_alone(max_running: int) -> None:
    first, bad, ungrounded, last = Bench(max_running).run(sequence(3), sequence(BAD), sequence(8, BAD), sequence(5))
    assert isinstance(first, Generation)
    assert isinstance(last, Generation)
    assert isinstance(bad, InferenceError)
    assert isinstance(ungrounded, InferenceError)
    assert "boom" not in bad.message


def test_sequences_run_in_the_order_of_arrival_and_no_more_than_allowed() -> None:
    scheduler = Scheduler(max_running=2)
    sequences = [sequence(n) for n in range(1, 5)]
    for item in sequences:
        scheduler.add(item)
    assert scheduler.admit() == sequences[:2]
    assert scheduler.admit() == []
    scheduler.remove(sequences[0])
    assert scheduler.admit() == [sequences[2]]
    assert [item.status for item in sequences] == [Status.FINISHED, Status.RUNNING, Status.RUNNING, Status.WAITING]


def test_a_cancelled_request_leaves_within_a_step_and_a_waiting_one_never_starts() -> None:
    bench = Bench()
    cancelled = {"running": False}
    running = sequence(50, is_cancelled=lambda: cancelled["running"])
    waiting = sequence(60, is_cancelled=lambda: True)
    bench.engine.add(running)
    bench.engine.add(waiting)
    bench.engine.step()
    cancelled["running"] = True
    bench.engine.step()
    assert not bench.engine.has_work
    assert not bench.runner.held
    assert bench.runner.prefilled == [50]
    assert [type(outcome) for _, outcome in bench.emitted] == [RequestCancelledError, RequestCancelledError]


def test_a_request_past_its_deadline_is_dropped() -> None:
    (late,) = Bench().run(sequence(50, deadline=time.monotonic() - 1))
    assert isinstance(late, DeadlineExceededError)


def test_timings_name_the_stages() -> None:
    (outcome,) = Bench().run(sequence(3))
    assert isinstance(outcome, Generation)
    assert set(outcome.timings_ms) == {"queue", "prefill", "decode", "segment"}


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


@pytest.fixture
def thread(gate: threading.Event) -> Iterator[EngineThread]:
    started = EngineThread(lambda: CountingRunner(lambda: gate.wait(10)))
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


def test_a_broken_engine_resolves_what_it_had() -> None:
    class Broken(CountingRunner):
        def release(self, sequence: Sequence) -> None:
            raise MemoryError("the device is gone")

    thread = EngineThread(Broken)
    future = thread.submit(sequence(2))
    assert isinstance(future.exception(10), InferenceError)
    with pytest.raises(NotReadyError):
        thread.submit(sequence(1))

"""The engine, its thread and the scheduler, with a runner that computes nothing: everything here takes milliseconds."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sa2va_bento.engine.bridge import EngineThread
from sa2va_bento.engine.engine import Engine, Outcome
from sa2va_bento.engine.scheduler import Limits, Scheduler
from sa2va_bento.engine.sequence import Generation, MaskLogits, PictureInput, Sequence, Status
from sa2va_bento.errors import (
    DeadlineExceededError,
    DeviceLostError,
    InferenceError,
    NotReadyError,
    RequestCancelledError,
)
from sa2va_bento.result import Sampling

STOP, BAD, SEG = 0, -1, 7
MASK = MaskLogits(np.zeros((2, 2), np.float32), 0.5, 0.5)
NO_PIXELS = np.zeros(0, np.float32)
PICTURE = PictureInput("key", "key/1x1", 1, lambda: NO_PIXELS, lambda: NO_PIXELS, ((1, 1),))


class CountingRunner:
    """Replies prompt[0], prompt[0] - 1, ... 0 (the stop token). A prompt that starts with BAD fails, and with it any
    batch that it is in; a batch of more than `most_together` is out of memory."""

    def __init__(self, on_step: Callable[[], object] = lambda: None) -> None:
        self.held: set[Sequence] = set()
        self.prefilled: list[int] = []
        self.batches: list[tuple[str, int]] = []
        self.most_together = 1000
        self.alive = True
        self.on_step = on_step

    def encode(self, sequences: list[Sequence]) -> None:
        self._note("encode", sequences)

    def prefill(self, sequences: list[Sequence], most: int) -> list[int | None]:
        self._note("prefill", sequences)
        self.held |= set(sequences)
        if any(sequence.prompt_ids[0] == BAD for sequence in sequences):
            raise RuntimeError("boom")
        self.prefilled += [sequence.prompt_ids[0] for sequence in sequences]
        return [sequence.prompt_ids[0] if sequence.unread <= most else None for sequence in sequences]

    def decode(self, sequences: list[Sequence]) -> list[int]:
        self._note("decode", sequences)
        self.on_step()
        return [sequence.output_ids[-1] - 1 for sequence in sequences]

    def ground(self, sequences: list[Sequence]) -> list[tuple[MaskLogits, ...]]:
        self._note("ground", sequences)
        if any(sequence.prompt_ids[1:] == (BAD,) for sequence in sequences):
            raise RuntimeError("no masks today")
        return [(MASK,) * (sequence.segs_read - len(sequence.masks)) for sequence in sequences]

    def release(self, sequence: Sequence) -> None:
        self.held.discard(sequence)

    def is_device_alive(self) -> bool:
        return self.alive

    def _note(self, stage: str, sequences: list[Sequence]) -> None:
        assert sequences
        self.batches.append((stage, len(sequences)))
        if len(sequences) > self.most_together:
            raise MemoryError("out of memory")


def sequence(*prompt: int, max_new_tokens: int = 100, **options: Any) -> Sequence:
    return Sequence(prompt, PICTURE, max_new_tokens, frozenset({STOP}), seg_id=SEG, **options)


class Bench:
    """An engine without a thread, and what it emitted."""

    def __init__(self, slots: int = 8, decode_tokens: int = 1, **limits: int) -> None:
        self.runner = CountingRunner()
        self.emitted: list[tuple[Sequence, Outcome]] = []
        emit = lambda sequence, outcome: self.emitted.append((sequence, outcome))  # noqa: E731
        self.engine = Engine(self.runner, emit, Scheduler(Limits(slots=slots, decode_tokens=decode_tokens, **limits)))

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


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_a_request_that_fails_fails_alone(slots: int) -> None:
    first, bad, ungrounded, last = Bench(slots).run(sequence(3), sequence(BAD), sequence(8, BAD), sequence(5))
    assert isinstance(first, Generation)
    assert isinstance(last, Generation)
    assert isinstance(bad, InferenceError)
    assert isinstance(ungrounded, InferenceError)
    assert "boom" not in bad.message


def test_sequences_run_in_the_order_of_arrival_and_no_more_than_allowed() -> None:
    scheduler = Scheduler(Limits(slots=2))
    sequences = [sequence(n) for n in range(1, 5)]
    for item in sequences:
        scheduler.add(item)
    scheduler.admit()
    assert scheduler.running == sequences[:2]
    scheduler.remove(sequences[0])
    scheduler.admit()
    assert scheduler.running == sequences[1:3]
    assert [item.status for item in sequences] == [Status.FINISHED, Status.RUNNING, Status.RUNNING, Status.WAITING]


def test_a_cancelled_request_leaves_within_a_step_and_a_waiting_one_never_starts() -> None:
    bench = Bench(slots=1)
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


def test_sequences_are_decoded_together_and_leave_one_by_one() -> None:
    bench = Bench()
    bench.run(sequence(1), sequence(2), sequence(4))
    assert [size for stage, size in bench.runner.batches if stage == "decode"] == [3, 2, 1, 1]


def test_running_replies_grow_by_a_few_tokens_a_step() -> None:
    bench = Bench(decode_tokens=3)
    long, short = sequence(50), sequence(2)
    bench.engine.add(long)
    bench.engine.add(short)
    bench.engine.step()
    assert (long.output_ids, short.output_ids) == ([50, 49, 48, 47], [2, 1, 0])
    assert [outcome for _, outcome in bench.emitted] == [short.generation()]


def test_a_batch_out_of_memory_is_tried_smaller() -> None:
    bench = Bench()
    bench.runner.most_together = 2
    outcomes = bench.run(*(sequence(n) for n in range(1, 7)))
    assert all(isinstance(outcome, Generation) for outcome in outcomes)
    assert [outcome.output_ids for outcome in outcomes if isinstance(outcome, Generation)] == [
        tuple(range(n, 0, -1)) for n in range(1, 7)
    ]


def test_a_lost_device_ends_the_engine() -> None:
    bench = Bench()
    bench.runner.alive = False
    bench.engine.add(sequence(BAD))
    with pytest.raises(DeviceLostError):
        bench.engine.step()


def test_long_prompts_are_read_in_pieces_between_the_tokens_of_others() -> None:
    bench = Bench(max_prefill=100)
    short, long = sequence(50), sequence(9, *[1] * 450)
    bench.engine.add(short)
    bench.engine.step()
    bench.engine.add(long)
    read = []
    while long.unread:
        before = len(short.output_ids)
        bench.engine.step()
        read.append(long.prefilled)
        assert len(short.output_ids) == before + 1  # the running reply never waits for more than one piece
    assert read == [100, 200, 300, 400, 451]


def test_prompts_are_read_together_up_to_the_limit_padding_included() -> None:
    scheduler = Scheduler(Limits(max_prefill=100))
    sequences = [sequence(*[1] * length) for length in (30, 30, 20, 60, 10)]
    for item in sequences:
        item.is_encoded = True
        scheduler.add(item)
    scheduler.admit()
    assert scheduler.to_prefill() == sequences[:3]


def test_pictures_are_encoded_together_up_to_the_limit_and_a_large_one_alone() -> None:
    scheduler = Scheduler(Limits(max_tiles=16))
    sequences = [Sequence((1,), replace(PICTURE, tile_count=tiles), 9, frozenset()) for tiles in (7, 9, 1, 40)]
    for item in sequences:
        scheduler.add(item)
    scheduler.admit()
    assert scheduler.to_encode() == sequences[:2]
    for item in sequences[:3]:
        item.is_encoded = True
    assert scheduler.to_encode() == sequences[3:]


def test_the_random_number_behind_a_token_depends_on_seed_and_place_alone() -> None:
    first, other = sequence(3, sampling=Sampling(1.0, seed=5)), sequence(4, sampling=Sampling(1.0, seed=6))
    assert first.uniform() == first.uniform() == sequence(9, sampling=Sampling(0.5, seed=5)).uniform()
    assert first.uniform() != other.uniform()
    before = first.uniform()
    first.append(9)
    assert first.uniform() != before
    assert 0 <= first.uniform() < 1


def test_a_stop_string_ends_a_reply() -> None:
    (outcome,) = Bench().run(sequence(9, ends_reply=lambda ids: ids[-1] == 7))
    assert isinstance(outcome, Generation)
    assert (outcome.output_ids, outcome.finish_reason) == ((9, 8, 7), "stop")


def test_timings_name_the_stages() -> None:
    (outcome,) = Bench().run(sequence(9))
    assert isinstance(outcome, Generation)
    assert set(outcome.timings_ms) == {"queue", "prefill", "decode", "segment"}


def test_every_seg_that_was_read_has_a_mask_and_one_that_ends_the_reply_has_none() -> None:
    whole, cut = Bench().run(sequence(9), sequence(9, max_new_tokens=3))
    assert isinstance(whole, Generation)
    assert isinstance(cut, Generation)
    assert (len(whole.masks), len(cut.masks)) == (1, 0)
    assert cut.output_ids[-1] == SEG


class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def on_token(self, token: int) -> None:
        self.told.append(token)

    def on_masks(self, sequence: Sequence) -> None:
        self.told.append(f"{len(sequence.masks)} masks")


def test_a_listener_hears_tokens_and_masks_as_they_come_and_no_stop_token() -> None:
    watcher = Watcher()
    Bench().run(sequence(9, listener=watcher))
    assert watcher.told == [9, 8, 7, 6, "1 masks", 5, 4, 3, 2, 1]


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


def test_a_broken_engine_resolves_what_it_had() -> None:
    class Broken(CountingRunner):
        def release(self, sequence: Sequence) -> None:
            raise MemoryError("the device is gone")

    thread = EngineThread(Broken(), Scheduler(Limits()))
    future = thread.submit(sequence(2))
    assert isinstance(future.exception(10), InferenceError)
    with pytest.raises(NotReadyError):
        thread.submit(sequence(1))

"""The engine's step, with a runner that computes nothing: everything here takes milliseconds."""

import time
import weakref
from dataclasses import replace

import numpy as np
import pytest

from sa2va_bento.engine.sequence import Generation, Prefix, Sequence
from sa2va_bento.errors import DeadlineExceededError, DeviceLostError, InferenceError, RequestCancelledError
from tests.fake_runner import BAD, PICTURE, SEG, STOP, Bench, CountingRunner, sequence


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


def test_a_reply_is_given_up_between_two_of_its_tokens() -> None:
    bench = Bench(decode_tokens=8)
    patient = sequence(50)
    leaving = sequence(60, is_cancelled=lambda: len(leaving.output_ids) == 3)
    late = sequence(70)
    bench.runner.on_step = lambda: setattr(late, "deadline", 0.0) if len(late.output_ids) == 4 else None
    for item in (patient, leaving, late):
        bench.engine.add(item)
    bench.engine.step()
    assert [len(item.output_ids) for item in (patient, leaving, late)] == [9, 3, 5]
    assert {type(outcome) for _, outcome in bench.emitted} == {RequestCancelledError, DeadlineExceededError}
    assert bench.runner.held == {patient}


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


def test_the_failed_step_is_forgotten_before_it_is_tried_smaller() -> None:
    class Activations:
        pass

    alive: list[weakref.ref[Activations]] = []

    class FullRunner(CountingRunner):
        def prefill(self, sequences: list[Sequence], most: int) -> list[int | None]:
            assert all(earlier() is None for earlier in alive)
            held = Activations()  # a local of a frame that the error's traceback knows
            alive.append(weakref.ref(held))
            return super().prefill(sequences, most)

    bench = Bench()
    bench.engine.runner = bench.runner = FullRunner()
    bench.runner.most_together = 2
    outcomes = bench.run(*(sequence(n) for n in range(1, 6)))
    assert all(isinstance(outcome, Generation) for outcome in outcomes)
    assert len(alive) > 2


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


def test_what_was_read_for_others_is_neither_encoded_nor_read_again() -> None:
    bench = Bench()
    bench.runner.known = 40
    shared, marked, text = (sequence(9, *[1] * 99, max_new_tokens=1) for _ in range(3))
    shared.prefix = marked.prefix = Prefix("picture", 40)
    marked.picture = replace(PICTURE, region_cells=(np.ones(4, bool),))  # its regions' tokens are still to be read
    bench.run(shared, marked, text)
    assert bench.runner.batches == [("load_prefixes", 2), ("encode", 2), ("prefill", 3)]
    assert bench.runner.unread == [60, 60, 100]


def test_a_reply_without_seg_grounds_nothing() -> None:
    bench = Bench()
    bench.run(sequence(6), sequence(5))
    assert "ground" not in {stage for stage, _ in bench.runner.batches}


def test_a_stop_string_ends_a_reply() -> None:
    (outcome,) = Bench().run(sequence(9, ends_reply=lambda ids: ids[-1] == 7))
    assert isinstance(outcome, Generation)
    assert (outcome.output_ids, outcome.finish_reason) == ((9, 8, 7), "stop")


def test_timings_name_the_stages() -> None:
    (outcome,) = Bench().run(sequence(9))
    assert isinstance(outcome, Generation)
    assert set(outcome.timings_ms) == {"queue", "encode", "prefill", "decode", "segment", "total"}


def test_every_seg_has_a_mask_also_one_at_which_the_reply_is_cut_off() -> None:
    whole, cut = Bench().run(sequence(9), sequence(9, max_new_tokens=3))
    assert isinstance(whole, Generation)
    assert isinstance(cut, Generation)
    assert (len(whole.masks), len(cut.masks)) == (1, 1)
    assert (cut.completion_tokens, cut.finish_reason) == (3, "length")
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

"""What the scheduler decides, and what a sequence knows of itself."""

from dataclasses import replace

from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.scheduler import Scheduler
from sa2va_bento.engine.sequence import Sequence, Status
from sa2va_bento.types import Sampling
from tests.fake_runner import PICTURE, sequence


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


def test_a_long_prompt_is_read_in_pieces_beside_the_shortest_of_the_others() -> None:
    scheduler = Scheduler(Limits(max_prefill=100))
    long, short, other = sequence(9, *[1] * 249), sequence(8, *[1] * 39), sequence(7, *[1] * 14)
    for item in (long, short, other):
        item.is_encoded = True
        scheduler.add(item)
    scheduler.admit()
    batches = []
    while any(item.unread for item in (long, short, other)):
        batch = scheduler.to_prefill()
        for item in batch:
            item.prefilled += min(item.unread, scheduler.piece(len(batch)))
        batches.append([(item.prompt_ids[0], item.prefilled) for item in batch])
    assert batches == [[(9, 50), (7, 15)], [(9, 100), (8, 40)], [(9, 200)], [(9, 250)]]


def test_prompts_are_read_together_up_to_the_limit() -> None:
    scheduler = Scheduler(Limits(max_prefill=100))
    sequences = [sequence(*[1] * length) for length in (30, 40, 20, 50, 10)]
    for item in sequences:
        item.is_encoded = True
        scheduler.add(item)
    scheduler.admit()
    assert scheduler.to_prefill() == [sequences[number] for number in (0, 1, 2, 4)]


def test_pictures_are_encoded_together_up_to_the_limit_and_a_large_one_alone() -> None:
    scheduler = Scheduler(Limits(max_tiles=16))
    sequences = [Sequence((1,), replace(PICTURE, tile_count=tiles), 9, frozenset()) for tiles in (7, 9, 40, 1)]
    for item in sequences:
        scheduler.add(item)
    scheduler.admit()
    assert scheduler.to_encode() == [sequences[0], sequences[3]]
    sequences[0].is_encoded = True
    assert scheduler.to_encode() == [sequences[1], sequences[3]]
    sequences[1].is_encoded = sequences[3].is_encoded = True
    assert scheduler.to_encode() == [sequences[2]]


def test_the_random_number_behind_a_token_depends_on_seed_and_place_alone() -> None:
    first, other = sequence(3, sampling=Sampling(1.0, seed=5)), sequence(4, sampling=Sampling(1.0, seed=6))
    assert first.uniform() == first.uniform() == sequence(9, sampling=Sampling(0.5, seed=5)).uniform()
    assert first.uniform() != other.uniform()
    before = first.uniform()
    first.append(9)
    assert first.uniform() != before
    assert 0 <= first.uniform() < 1

"""The simulation of replicas agrees with queueing theory where that has an answer, and scales as it is told."""

import random

import pytest

from benchmarks.fleet import Fleet, Scaling, Speed, replicas_needed

ONE_BY_ONE = Speed((1,), (10.0,))
"""Ten a second, however many there are: no gain by batching."""
_numbers = random.Random(1)
WORKS = [_numbers.expovariate(1.0) for _ in range(20_000)]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("slots", [1, 512], ids=["in line", "sharing"])
def test_one_replica_is_the_queue_of_the_textbook(load: float, slots: int) -> None:
    """M/M/1, in line or sharing: 1 / (rate of service - rate of arrival) on average."""
    outcome = Fleet(ONE_BY_ONE, slots, WORKS, Scaling(1, 1)).run(10 * load, seconds=4000)
    assert mean(outcome.seconds) == pytest.approx(1 / (10 - 10 * load), rel=0.12)


def test_every_request_is_answered() -> None:
    outcome = Fleet(ONE_BY_ONE, 4, [1.0], Scaling(2, 2), seed=3).run(15, seconds=100)
    assert len(outcome.seconds) == pytest.approx(1500, rel=0.1)
    assert min(outcome.seconds) == pytest.approx(0.1)


def test_speed_is_interpolated_between_what_was_measured() -> None:
    speed = Speed((1, 4, 16), (10.0, 25.0, 40.0))
    assert [speed.with_running(count) for count in (1, 4, 16, 64)] == [10, 25, 40, 40]
    assert speed.with_running(10) == pytest.approx(32.5)


def test_batching_is_worth_what_was_measured() -> None:
    batching = Speed((1, 16), (10.0, 80.0))
    assert Fleet(batching, 16, [1.0], Scaling(1, 1)).run(40, 200).quantile(0.95) < 0.5
    assert Fleet(ONE_BY_ONE, 16, [1.0], Scaling(1, 1)).run(40, 200).quantile(0.95) > 50


def test_from_zero_the_first_wait_for_a_cold_start() -> None:
    scaling = Scaling(0, 4, target=4, cold_start_s=60, calm_s=60)
    outcome = Fleet(ONE_BY_ONE, 16, [1.0], scaling).run(5, seconds=600)
    assert 60 <= max(outcome.seconds) < 130
    assert outcome.quantile(0.5) < 2
    assert max(count for _, count in outcome.replicas) >= 1
    assert outcome.replicas[0] == (0.0, 0)
    assert outcome.replicas[-1][1] <= 1


def test_replicas_needed() -> None:
    assert replicas_needed(ONE_BY_ONE, 16, [1.0], rate=5, p95_s=0.5) == 1
    few = replicas_needed(ONE_BY_ONE, 16, [1.0], rate=45, p95_s=0.5)
    assert few is not None
    assert 5 <= few <= 8
    assert replicas_needed(ONE_BY_ONE, 16, [1.0], rate=5, p95_s=0.01, most=8) is None  # one request alone takes longer

"""Who is admitted: by places, and by the time that an answer would take."""

import pytest

from sa2va_bento.errors import OverloadedError
from sa2va_bento.processing.admission import Admission


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def filled(clock: Clock, pending: int) -> Admission:
    """Two slots and ten places to wait, so many of them taken."""
    admission = Admission(2, 10, clock)
    for _ in range(pending):
        admission.enter()
    return admission


def test_slots_and_places_to_wait_are_counted_apart() -> None:
    admission = filled(Clock(), 12)
    with pytest.raises(OverloadedError, match="12 requests are waiting"):
        admission.enter()
    admission.leave()
    admission.enter()


def test_an_answer_that_would_come_too_late_is_not_promised() -> None:
    clock = Clock()
    admission = filled(clock, 10)
    for _ in range(60):  # one leaves every second, and another comes
        clock.now += 1
        admission.leave()
        admission.enter()
    assert admission.wait_s == pytest.approx(10, rel=0.1)
    admission.check(20)
    with pytest.raises(OverloadedError, match="would take 10 s") as refusal:
        admission.check(5)
    assert refusal.value.retry_after_s == 5


def test_quiet_hours_do_not_count_as_slow_ones() -> None:
    clock = Clock()
    admission = filled(clock, 1)
    for _ in range(5):
        clock.now += 3600
        admission.leave()
        admission.enter()
    for _ in range(9):
        admission.enter(60)
    assert admission.wait_s == 0

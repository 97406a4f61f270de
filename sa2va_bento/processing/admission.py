"""Admission control: how many requests may be under way, and whether one more can be answered in time."""

import math
import threading
import time
from collections.abc import Callable

from sa2va_bento.errors import OverloadedError

SMOOTHING = 0.1
"""Weight of the newest interval between two answers in their exponential moving average."""
MOST_RETRY_AFTER_S = 60


class Admission:
    """Counts the requests that the model works on (`slots`) and those that wait (`max_waiting`), and knows how fast
    they leave. May be asked from any thread."""

    def __init__(self, slots: int, max_waiting: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._slots, self._capacity, self._clock = slots, slots + max_waiting, clock
        self._lock = threading.Lock()
        self._interval_s = 0.0
        self._last_left: float | None = None
        self.pending = 0

    @property
    def wait_s(self) -> float:
        """How long a newcomer will wait for its answer, estimated from how fast others got theirs."""
        return self.pending * self._interval_s if self.pending >= self._slots else 0.0

    def check(self, left_s: float = math.inf, coming: int = 0) -> None:
        """Whether a request whose deadline is `left_s` seconds away would be admitted now, behind others that are
        `coming`.

        Raises:
            OverloadedError: there is no place, or its answer would come too late; it says when to try again.
        """
        wait_s = self.wait_s
        if self.pending + coming >= self._capacity:
            raise self._overloaded(f"{self.pending} requests are waiting already; try again later", wait_s)
        if wait_s > left_s:
            raise self._overloaded(f"the answer would take {wait_s:.0f} s; try again later", wait_s)

    def enter(self, left_s: float = math.inf) -> None:
        """Takes a place. Raises OverloadedError as `check`."""
        with self._lock:
            self.check(left_s)
            self.pending += 1

    def leave(self) -> None:
        """Gives a place back."""
        with self._lock:
            self.pending -= 1
            now = self._clock()
            if self._last_left is not None:
                interval_s = now - self._last_left
                self._interval_s += SMOOTHING * (interval_s - self._interval_s)
            self._last_left = (
                now if self.pending >= self._slots else None
            )  # an interval counts if somebody waited in it

    def _overloaded(self, message: str, wait_s: float) -> OverloadedError:
        return OverloadedError(message, max(1, min(MOST_RETRY_AFTER_S, math.ceil(wait_s / 2))))

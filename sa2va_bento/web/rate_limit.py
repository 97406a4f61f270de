"""How often a caller may ask: a token bucket for each."""

import time
from collections import OrderedDict
from collections.abc import Callable

MOST_CALLERS = 65_536
"""Callers whose rates are remembered; past it the one silent for longest is forgotten."""


class TokenBuckets:
    """A token bucket for each caller: `per_minute` at once, refilled evenly over a minute."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = float(per_minute), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # left at a time, the longest silent first

    def take(self, caller: str) -> float:
        """Counts a request: 0 if it may go on, else the seconds until it may."""
        now, rate = self._clock(), self._most / 60
        self._forget(now)
        left, then = self._buckets.pop(caller, (self._most, now))
        left = min(self._most, left + (now - then) * rate)
        wait_s = 0.0 if left >= 1 else (1 - left) / rate
        self._buckets[caller] = (left if wait_s else left - 1, now)
        return wait_s

    def _forget(self, now: float) -> None:
        """Drops callers whose buckets are full again, and the oldest beyond the most that are remembered."""
        while self._buckets:
            _, then = next(iter(self._buckets.values()))
            if now - then < 60 and len(self._buckets) < MOST_CALLERS:
                return
            self._buckets.popitem(last=False)

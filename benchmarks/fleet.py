"""A discrete-event simulation of replicas behind a balancer: how long requests take, and how many replicas that takes.

A replica shares its speed among the requests that it works on (processor sharing), at most `slots` of them; the others
wait in line. How fast it is with n requests at once is measured, not assumed: that is what batching is worth. Requests
come by themselves (a Poisson process), and go to the replica with the fewest. A scaler looks at requests running and
waiting every few seconds, as KEDA does; a replica that it adds takes a cold start; with none, requests are held.
"""

import bisect
import collections
import heapq
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Speed:
    """Requests that a replica completes in a second, by how many it works on at once: measured at some of these."""

    at_once: tuple[int, ...]
    per_second: tuple[float, ...]

    def with_running(self, count: int) -> float:
        """Between the measured ones, on a line; past them, no faster."""
        if count >= self.at_once[-1]:
            return self.per_second[-1]
        place = bisect.bisect_right(self.at_once, count)
        if place == 0:
            return self.per_second[0]
        low, high = self.at_once[place - 1], self.at_once[place]
        share = (count - low) / (high - low)
        return self.per_second[place - 1] * (1 - share) + self.per_second[place] * share


@dataclass(frozen=True)
class Scaling:
    """How many replicas there are. `target` is the requests that one should have."""

    least: int
    most: int
    target: float = 12.0
    every_s: float = 10.0
    cold_start_s: float = 60.0
    calm_s: float = 600.0
    """For which fewer must have been enough before there are fewer."""


@dataclass(eq=False)
class _Request:
    arrived: float
    work: float
    """What is left of it; 1 is what a request takes on average."""


@dataclass(eq=False)
class _Replica:
    speed: Speed
    slots: int
    running: list[_Request] = field(default_factory=list)
    line: collections.deque[_Request] = field(default_factory=collections.deque)
    now: float = 0.0
    version: int = 0
    is_leaving: bool = False

    @property
    def load(self) -> int:
        return len(self.running) + len(self.line)

    def advance(self, now: float) -> None:
        """Works on all that run, each an equal share."""
        if self.running:
            done = (now - self.now) * self.speed.with_running(len(self.running)) / len(self.running)
            for request in self.running:
                request.work -= done
        self.now = now
        self.version += 1

    def begin(self) -> None:
        """Takes from the line what there are slots for."""
        while self.line and len(self.running) < self.slots:
            self.running.append(self.line.popleft())

    @property
    def next_end(self) -> float:
        """When the first of those that run ends, if nothing else comes."""
        least = min(request.work for request in self.running)
        return self.now + max(0.0, least) * len(self.running) / self.speed.with_running(len(self.running))


@dataclass
class Outcome:
    """What became of the requests: seconds of each, in the order of their ends; replicas over time (time, count)."""

    seconds: list[float] = field(default_factory=list)
    replicas: list[tuple[float, int]] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


class Fleet:
    """One run of the simulation."""

    def __init__(self, speed: Speed, slots: int, works: Sequence[float], scaling: Scaling, seed: int = 0) -> None:
        """`works` are what requests take, relative to their mean; they are drawn from these."""
        self._speed, self._slots, self._works, self._scaling = speed, slots, works, scaling
        self._numbers = random.Random(seed)
        self._replicas = [_Replica(speed, slots) for _ in range(scaling.least)]
        self._held: collections.deque[_Request] = collections.deque()
        self._events: list[tuple[float, int, str, object]] = []
        self._order = itertools.count()
        self._coming = 0
        self._wanted: collections.deque[tuple[float, int]] = collections.deque()
        self._last_arrival = -math.inf
        self.outcome = Outcome()

    def run(self, rate: float, seconds: float) -> Outcome:
        """Requests come at `rate` a second for so long; all are answered in the end."""
        for at in self._arrivals(rate, seconds):
            self._plan(at, "arrival", None)
        if self._scaling.least != self._scaling.most:
            self._plan(0.0, "scale", float(seconds))
        while self._events:
            now, _, kind, subject = heapq.heappop(self._events)
            match kind, subject:
                case "arrival", _:
                    self._arrive(now)
                case "end", (replica, version):
                    self._end(now, replica, version)
                case "ready", _:
                    self._join(now)
                case "scale", float(until):
                    self._scale(now, until)
        return self.outcome

    def _arrivals(self, rate: float, seconds: float) -> Iterator[float]:
        at = self._numbers.expovariate(rate)
        while at < seconds:
            yield at
            at += self._numbers.expovariate(rate)

    def _plan(self, at: float, kind: str, subject: object) -> None:
        heapq.heappush(self._events, (at, next(self._order), kind, subject))

    def _arrive(self, now: float) -> None:
        self._last_arrival = now
        request = _Request(now, self._numbers.choice(self._works))
        staying = [replica for replica in self._replicas if not replica.is_leaving]
        if staying:
            self._give(now, min(staying, key=lambda replica: replica.load), request)
        else:
            self._held.append(request)

    def _give(self, now: float, replica: _Replica, request: _Request) -> None:
        replica.advance(now)
        replica.line.append(request)
        self._go_on(replica)

    def _go_on(self, replica: _Replica) -> None:
        replica.begin()
        if replica.running:
            self._plan(replica.next_end, "end", (replica, replica.version))

    def _end(self, now: float, replica: _Replica, version: int) -> None:
        if version != replica.version:  # something came in between
            return
        replica.advance(now)
        done = min(replica.running, key=lambda request: request.work)
        replica.running.remove(done)
        self.outcome.seconds.append(now - done.arrived)
        self._go_on(replica)
        if replica.is_leaving and not replica.load:
            self._replicas.remove(replica)

    def _join(self, now: float) -> None:
        self._coming -= 1
        replica = _Replica(self._speed, self._slots, now=now)
        self._replicas.append(replica)
        while self._held:
            self._give(now, replica, self._held.popleft())

    def _scale(self, now: float, until: float) -> None:
        """As Kubernetes' autoscaler: more at once; fewer one at a time, if nothing in the calm time asked for more."""
        staying = [replica for replica in self._replicas if not replica.is_leaving]
        load = len(self._held) + sum(replica.load for replica in self._replicas)
        self.outcome.replicas.append((now, len(staying)))
        self._wanted.append((now, self._wish(load, now)))
        while self._wanted[0][0] < now - self._scaling.calm_s:
            self._wanted.popleft()
        wanted = max(count for _, count in self._wanted)
        for _ in range(wanted - len(staying) - self._coming):
            self._coming += 1
            self._plan(now + self._scaling.cold_start_s, "ready", None)
        if wanted < len(staying):
            leaving = min(staying, key=lambda replica: replica.load)
            leaving.is_leaving = True
            if not leaving.load:
                self._replicas.remove(leaving)
        if now < until or load:
            self._plan(now + self._scaling.every_s, "scale", until)

    def _wish(self, load: int, now: float) -> int:
        """To zero only if nobody has come for a while."""
        busy = 1 if now - self._last_arrival < self._scaling.calm_s else 0
        wish = max(math.ceil(load / self._scaling.target), busy, self._scaling.least)
        return min(wish, self._scaling.most)


def replicas_needed(
    speed: Speed, slots: int, works: Sequence[float], rate: float, p95_s: float, most: int = 64
) -> int | None:
    """The fewest replicas with which 95 of 100 requests take no longer; None where more replicas do not help."""
    for count in range(max(1, math.ceil(rate / max(speed.per_second))), most + 1):
        outcome = Fleet(speed, slots, works, Scaling(count, count), seed=1).run(rate, seconds=200)
        if outcome.quantile(0.95) <= p95_s:
            return count
    return None

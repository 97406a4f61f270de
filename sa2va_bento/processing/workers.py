"""The worker pool: what is done to requests before and after the engine, beside the event loop."""

import ctypes
import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

IDLE_S = 1.0
BUSY_S = 10.0
"""Between two times that memory is given back while there is always something to do."""

Made = TypeVar("Made")
Job = Callable[[], object]


class WorkerPool:
    """Threads that share one priority queue: what ends a request goes before what begins one, so that under load
    answers leave before newcomers are prepared. Once nothing has come for a while, and now and then where something
    always comes, `on_idle` is called."""

    def __init__(self, threads: int, on_idle: Callable[[], object] = lambda: None) -> None:
        self._on_idle, self._has_worked, self._tidied_at = on_idle, False, time.monotonic()
        self._jobs: list[tuple[int, int, Job, Future[Any]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"sa2va-worker-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], Made], *, first: bool = False) -> "Future[Made]":
        """What `work` will have returned. Raises RuntimeError when the pool is closed."""
        future: Future[Made] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the worker pool is closed")
            heapq.heappush(self._jobs, (not first, next(self._order), work, future))
            self._changed.notify()
        return future

    def close(self, *, wait: bool = True) -> None:
        """Takes nothing new and ends the threads once the queue is empty."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if wait:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            work, future = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # the thread lives on, whatever it was
                future.set_exception(error)
            del job, work, future  # an idle thread keeps nothing alive

    def _next(self) -> tuple[Job, "Future[Any]"] | None:
        with self._changed:
            while not self._jobs:
                if self._closed:
                    return None
                if not self._changed.wait(IDLE_S) and self._has_worked and not self._jobs:
                    return self._tidy()
            if self._has_worked and time.monotonic() - self._tidied_at > BUSY_S:
                return self._tidy()
            self._has_worked = True
            _, _, work, future = heapq.heappop(self._jobs)
            return work, future

    def _tidy(self) -> tuple[Job, "Future[Any]"]:
        self._tidied_at, self._has_worked = time.monotonic(), False  # one thread is enough
        return self._on_idle, Future()


def give_back_memory() -> None:
    """Returns to the system what glibc keeps of freed memory: after a few large pictures that is hundreds of megabytes.
    Elsewhere it does nothing."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class SerialQueue:
    """Runs one request's jobs on the pool in the order they came, one at a time."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool, self._lock = pool, threading.Lock()
        self._jobs: deque[Job] = deque()
        self._running = False

    def submit(self, job: Job) -> None:
        """Raises RuntimeError when the pool is closed."""
        with self._lock:
            self._jobs.append(job)
            if not self._running:
                self._pool.submit(self._drain, first=True)
                self._running = True

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._running = False
                    return
                job = self._jobs.popleft()
            job()

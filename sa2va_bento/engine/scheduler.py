"""Decides which sequences run. Two collections, no computation, no torch."""

from collections import deque

from sa2va_bento.engine.sequence import Sequence, Status


class Scheduler:
    """First come, first served, at most `max_running` at a time."""

    def __init__(self, max_running: int) -> None:
        self.max_running = max_running
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def admit(self) -> list[Sequence]:
        """Moves waiting sequences into free places and returns them."""
        admitted = []
        while self.waiting and len(self.running) < self.max_running:
            sequence = self.waiting.popleft()
            sequence.start()
            self.running.append(sequence)
            admitted.append(sequence)
        return admitted

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is."""
        sequence.status = Status.FINISHED
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def drop_abandoned(self) -> list[Sequence]:
        """Takes out every sequence that nobody waits for any more and returns them."""
        abandoned = [s for s in (*self.waiting, *self.running) if s.is_cancelled() or s.is_expired]
        for sequence in abandoned:
            self.remove(sequence)
        return abandoned

"""Continuous batching with chunked prefill: decides which sequences do what in the next step. Requests join and leave
between two steps; a long prompt is read in pieces. Two collections, no computation, no torch.

A reply that is running waits, every `decode_tokens` tokens, for at most one picture batch (`max_tiles`, or one picture
of more), one prompt batch (`max_prefill` tokens) and one grounding batch (`max_images` pictures), whatever arrives.
"""

from collections import deque
from collections.abc import Callable, Iterable

from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.sequence import Sequence, Status


class Scheduler:
    """First come, first served, within the limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def admit(self) -> None:
        """Moves waiting sequences into free slots."""
        while self.waiting and len(self.running) < self.limits.slots:
            sequence = self.waiting.popleft()
            sequence.start()
            self.running.append(sequence)

    def to_look_up(self) -> list[Sequence]:
        """Sequences the beginning of whose prompts may be in the prefix cache."""
        return [sequence for sequence in self.running if sequence.may_hit_prefix_cache]

    def to_encode(self) -> list[Sequence]:
        """Sequences whose pictures are encoded next; at least one, however many tiles it has."""
        unread = [sequence for sequence in self.running if not sequence.is_encoded]
        return _within(unread, self.limits.max_tiles, lambda chosen: sum(s.tile_count for s in chosen))

    def to_prefill(self) -> list[Sequence]:
        """Sequences whose prompts are read next: several, or a piece of a long one."""
        most = self.limits.max_prefill
        ready = [sequence for sequence in self.running if sequence.is_encoded and sequence.unread]
        return _within(ready, most, lambda chosen: len(chosen) * min(most, max(s.unread for s in chosen)))

    def to_decode(self) -> list[Sequence]:
        return [sequence for sequence in self.running if sequence.is_decoding]

    def to_ground(self) -> list[Sequence]:
        """Sequences whose `[SEG]`s are grounded next, at most as many as are grounded together."""
        return [sequence for sequence in self.running if sequence.wants_grounding][: self.limits.max_images]

    def finished(self) -> list[Sequence]:
        return [sequence for sequence in self.running if sequence.is_finished]

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is."""
        sequence.status = Status.FINISHED
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def abandoned(self) -> list[Sequence]:
        """Sequences that nobody waits for any more."""
        return [s for s in (*self.waiting, *self.running) if s.is_cancelled() or s.is_expired]


def _within(sequences: Iterable[Sequence], most: int, cost: Callable[[list[Sequence]], int]) -> list[Sequence]:
    """The longest beginning that costs no more than `most`, but at least one."""
    chosen: list[Sequence] = []
    for sequence in sequences:
        if chosen and cost([*chosen, sequence]) > most:
            break
        chosen.append(sequence)
    return chosen

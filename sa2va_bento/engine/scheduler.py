"""Continuous batching with chunked prefill: decides which sequences do what in the next step. Requests join and leave
between two steps; a long prompt is read in pieces. Two collections, no computation, no torch.

A reply that is running waits, every `decode_tokens` tokens, for at most one picture batch (`max_tiles`, or one picture
of more), one prompt batch (`max_prefill` tokens) and one grounding batch (`max_images` pictures), whatever arrives.

Nobody starves. In each step the oldest gets its turn, and the shortest get what is left: of prompts, half of
`max_prefill` where several wait. So a question that has its slot, and of which at most half of `max_prefill` is unread,
is read within the step after those in which shorter ones filled that half, however many long prompts are before it.
"""

from collections import deque
from collections.abc import Callable

from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.sequence import Sequence, Status

PATIENCE = 8
"""Times that a request which may wait is passed over by others before it has its turn all the same."""


class Scheduler:
    """First come, first served, within the limits; short questions beside long ones."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._passed_over = 0

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def admit(self, reserve: Callable[[Sequence, int], bool] = lambda sequence, tokens: True) -> None:
        """Moves waiting sequences into free slots, as long as there is room for what is read of each, which `reserve`
        knows: admission by tokens."""
        while self.waiting and len(self.running) < self.limits.slots:
            sequence = self._next()
            if not reserve(sequence, sequence.length):
                return
            self._passed_over = self._passed_over + 1 if sequence is not self.waiting[0] else 0
            self.waiting.remove(sequence)
            sequence.start()
            self.running.append(sequence)

    def _next(self) -> Sequence:
        """First come, first served; who may wait is passed over by others, but not more than `PATIENCE` times."""
        first = self.waiting[0]
        if not first.may_wait or self._passed_over >= PATIENCE:
            return first
        return next((sequence for sequence in self.waiting if not sequence.may_wait), first)

    def preempt_for(self, sequence: Sequence) -> Sequence:
        """Pre-emption: puts the youngest that still reads or writes, which may be the sequence itself, in front of
        those that wait; one that may wait before one that may not."""
        able = [other for other in reversed(self.running) if other is sequence or not other.is_complete]
        youngest = next((other for other in able if other.may_wait), able[0])
        self.running.remove(youngest)
        self.waiting.appendleft(youngest)
        return youngest

    def to_look_up(self) -> list[Sequence]:
        """Sequences the beginning of whose prompts may be in the prefix cache."""
        return [sequence for sequence in self.running if sequence.may_hit_prefix_cache]

    def to_encode(self) -> list[Sequence]:
        """Sequences whose pictures are encoded next; at least one, however many tiles it has."""
        unread = [sequence for sequence in self.running if not sequence.is_encoded]
        return _fairly(unread, self.limits.max_tiles, lambda sequence: sequence.tile_count)

    def to_prefill(self) -> list[Sequence]:
        """Sequences whose prompts are read next, up to `piece` tokens of each."""
        ready = [sequence for sequence in self.running if sequence.is_encoded and sequence.unread]
        piece = self.piece(len(ready))
        return _fairly(ready, self.limits.max_prefill, lambda sequence: min(piece, sequence.unread))

    def piece(self, sequences: int) -> int:
        """Tokens of a prompt that are read at once, where so many have some to read."""
        return self.limits.max_prefill if sequences == 1 else self.limits.max_prefill // 2

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


def _fairly(sequences: list[Sequence], most: int, cost: Callable[[Sequence], int]) -> list[Sequence]:
    """The oldest and then the cheapest, as many as cost no more than `most` together; in the order of their arrival."""
    if not sequences:
        return []
    oldest, *others = sequences
    chosen, spent = {oldest}, cost(oldest)
    for sequence in sorted(others, key=lambda other: (other.may_wait, cost(other))):
        spent += cost(sequence)
        if spent > most:
            break
        chosen.add(sequence)
    return [sequence for sequence in sequences if sequence in chosen]

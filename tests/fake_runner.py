"""A runner that computes nothing, and an engine on it that steps by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sa2va_bento.engine.engine import Engine, Outcome
from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.scheduler import Scheduler
from sa2va_bento.engine.sequence import MaskLogits, Sequence
from sa2va_bento.engine.tracking import ClipTracking, FramePixels
from sa2va_bento.types import Picture, Pixels, TokenGrid

STOP, BAD, SEG = 0, -1, 7
MASK = MaskLogits(np.zeros((2, 2), np.float32), 0.5, 0.5)
NO_PIXELS = np.zeros(0, np.float32)
PICTURE = Picture("key", "key/1x1", 1, Pixels(lambda: NO_PIXELS), Pixels(lambda: NO_PIXELS), (TokenGrid(1, 1),))


class CountingRunner:
    """Replies prompt[0], prompt[0] - 1, ... 0 (the stop token). A prompt that starts with BAD fails, and with it any
    batch that it is in; a batch of more than `most_together` is out of memory."""

    def __init__(self, on_step: Callable[[], object] = lambda: None) -> None:
        self.held: set[Sequence] = set()
        self.prefilled: list[int] = []
        self.batches: list[tuple[str, int]] = []
        self.most_together = 1000
        self.known = 0
        self.unread: list[int] = []
        self.alive = True
        self.on_step = on_step

    def load_prefixes(self, sequences: list[Sequence]) -> list[int]:
        self._note("load_prefixes", sequences)
        return [self.known] * len(sequences)

    def encode(self, sequences: list[Sequence]) -> None:
        self._note("encode", sequences)

    def prefill(self, sequences: list[Sequence], most: int) -> list[int | None]:
        self._note("prefill", sequences)
        self.held |= set(sequences)
        if any(sequence.prompt_ids[0] == BAD for sequence in sequences):
            raise RuntimeError("boom")
        self.unread += [sequence.unread for sequence in sequences]
        self.prefilled += [sequence.prompt_ids[0] for sequence in sequences]
        return [sequence.prompt_ids[0] if sequence.unread <= most else None for sequence in sequences]

    def decode(self, sequences: list[Sequence]) -> list[int]:
        self._note("decode", sequences)
        self.on_step()
        return [sequence.output_ids[-1] - 1 for sequence in sequences]

    def ground(self, sequences: list[Sequence]) -> list[tuple[MaskLogits, ...]]:
        self._note("ground", sequences)
        if any(sequence.prompt_ids[1:] == (BAD,) for sequence in sequences):
            raise RuntimeError("no masks today")
        return [(MASK,) * (sequence.segs_read - len(sequence.masks)) for sequence in sequences]

    def take_prompts(self, sequence: Sequence) -> Any:
        return None

    def track(self, clip: ClipTracking, frames: list[FramePixels]) -> list[tuple[MaskLogits, ...]]:
        return [(MASK,) for _ in frames]

    def release_clip(self, clip: ClipTracking) -> None: ...

    def reserve(self, sequence: Sequence, tokens: int) -> bool:
        return True

    def preempt(self, sequence: Sequence) -> bool:
        self.held.discard(sequence)
        return True

    def release(self, sequence: Sequence) -> None:
        self.held.discard(sequence)

    def is_device_alive(self) -> bool:
        return self.alive

    def _note(self, stage: str, sequences: list[Sequence]) -> None:
        assert sequences
        self.batches.append((stage, len(sequences)))
        if len(sequences) > self.most_together:
            raise MemoryError("out of memory")


def sequence(*prompt: int, max_new_tokens: int = 100, **options: Any) -> Sequence:
    return Sequence(prompt, PICTURE, max_new_tokens, frozenset({STOP}), seg_id=SEG, **options)


class Bench:
    """An engine without a thread, and what it emitted."""

    def __init__(self, slots: int = 8, decode_tokens: int = 1, **limits: int) -> None:
        self.runner = CountingRunner()
        self.emitted: list[tuple[Sequence, Outcome]] = []
        emit = lambda sequence, outcome: self.emitted.append((sequence, outcome))  # noqa: E731
        self.engine = Engine(self.runner, emit, Scheduler(Limits(slots=slots, decode_tokens=decode_tokens, **limits)))

    def run(self, *sequences: Sequence) -> list[Outcome]:
        for item in sequences:
            self.engine.add(item)
        while self.engine.has_work:
            self.engine.step()
        assert not self.runner.held
        outcomes = {id(sequence): outcome for sequence, outcome in self.emitted}
        return [outcomes[id(item)] for item in sequences]

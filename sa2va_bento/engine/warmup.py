"""Everything once before the first request: libraries load their kernels, choose among them and take the memory that
they work in when they are first used."""

from sa2va_bento.engine.engine import ModelRunner
from sa2va_bento.engine.sequence import Sequence


def warm_up(runner: ModelRunner, sequence: Sequence, max_prefill: int) -> None:
    """Takes a sequence with a picture, which nobody waits for, through every stage. Whatever its reply begins with is
    taken for `[SEG]`, so that there is something to ground."""
    try:
        runner.encode([sequence])
        token = None
        while token is None:
            (token,) = runner.prefill([sequence], max_prefill)
            sequence.prefilled += min(sequence.unread, max_prefill)
        sequence.append(token)
        sequence.seg_id = token
        runner.decode([sequence])
        runner.ground([sequence])
    finally:
        runner.release(sequence)

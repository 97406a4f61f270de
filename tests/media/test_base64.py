"""Base64 a slice at a time: the same bytes, and no other thread kept waiting."""

import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from sa2va_bento.errors import BadRequestError
from sa2va_bento.media import images
from sa2va_bento.media.images import decode_base64
from tests.pictures import b64


def test_base64_leaves_other_threads_their_turn() -> None:
    """With all of a large text decoded at once they would wait for a tenth of a second."""
    data = np.random.default_rng(0).bytes(24 * 2**20)
    text = b64(data)
    assert decode_base64(text) == data
    assert min(longest_hold(lambda: decode_base64(text)) for _ in range(3)) < 0.04


def longest_hold(work: Callable[[], object]) -> float:
    """Seconds that a thread that only looks at the clock had to wait at most, while `work` was done."""
    longest, stop = 0.0, threading.Event()

    def tick() -> None:
        nonlocal longest
        last = time.monotonic()
        while not stop.wait(0.0005):
            now = time.monotonic()
            longest, last = max(longest, now - last), now

    ticking = threading.Thread(target=tick)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.001)
    try:
        ticking.start()
        work()
    finally:
        stop.set()
        ticking.join()
        sys.setswitchinterval(interval)
    return longest


@pytest.mark.parametrize("slice_of", [4, 8, 64])
@pytest.mark.parametrize("text", ["QUJD" * 9 + "QQ", "QUJD" * 9 + "QQ=", "QU\nJD " * 9 + "QQ==", "-_-_" * 8 + "-_8"])
def test_base64_is_the_same_in_slices(monkeypatch: pytest.MonkeyPatch, text: str, slice_of: int) -> None:
    whole = decode_base64(text)
    monkeypatch.setattr(images, "_SLICE", slice_of)
    assert decode_base64(text) == whole
    for place in (4, 8, 16):
        with pytest.raises(BadRequestError):
            decode_base64(text[:place] + "QQ==" + text[place:])

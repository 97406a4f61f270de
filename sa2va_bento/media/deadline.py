"""Work on a stranger's picture that can be stopped: looks at the clock, before each step and whenever Pillow reads."""

import io
import time
from bisect import bisect_right
from collections.abc import Sequence

from sa2va_bento.errors import DeadlineExceededError


def check_deadline(deadline: float | None) -> None:
    """Nothing before the deadline, a value of `time.monotonic()`; None never comes.

    Raises:
        DeadlineExceededError: it has passed.
    """
    if deadline is not None and time.monotonic() > deadline:
        raise DeadlineExceededError("no answer in time")


class WatchedFile(io.BytesIO):
    """A file in memory of which every read looks at the clock first.

    Pillow reads a block, decodes it and reads the next: what a block may cost is what passes between two looks.

    Args:
        data: What is in it.
        deadline: For `check_deadline`.
        stops: Places in rising order. No read goes beyond the next, where bytes cost more than their number suggests.
        patch: A place, and bytes to be read there instead of those of `data`, which is not copied.
    """

    def __init__(
        self, data: bytes, deadline: float | None, stops: Sequence[int] = (), patch: tuple[int, bytes] = (0, b"")
    ) -> None:
        super().__init__(data)
        self._deadline, self._stops, self._patch = deadline, stops, patch
        self._is_plain = not stops and not patch[1]

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises DeadlineExceededError."""
        check_deadline(self._deadline)
        if self._is_plain:
            return super().read(size)
        start = self.tell()
        following = bisect_right(self._stops, start)
        if following < len(self._stops):
            most = self._stops[following] - start
            size = most if size is None or size < 0 else min(size, most)
        return self._patched(start, super().read(size))

    def getvalue(self) -> bytes:
        return self._patched(0, super().getvalue())

    def _patched(self, start: int, data: bytes) -> bytes:
        place, patch = self._patch
        first, last = max(place, start), min(place + len(patch), start + len(data))
        if first >= last:
            return data
        return b"".join([data[: first - start], patch[first - place : last - place], data[last - start :]])

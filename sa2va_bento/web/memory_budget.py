"""How much memory the bodies of all requests may take together."""

from collections.abc import Generator
from contextlib import contextmanager

from sa2va_bento.errors import OverloadedError


class MemoryBudget:
    """Bytes for all requests that are read or answered. On the event loop alone."""

    def __init__(self, limit: int) -> None:
        self.limit, self.taken = limit, 0

    @contextmanager
    def share(self) -> Generator["MemoryShare"]:
        """One request's share; it is given back when the request is answered."""
        share = MemoryShare(self)
        try:
            yield share
        finally:
            self.taken -= share.taken


class MemoryShare:
    """What one request takes of the budget."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget, self.taken = budget, 0

    def take(self, size: int) -> None:
        """Counts bytes. Raises OverloadedError where they are more than there is."""
        self.taken += size
        self._budget.taken += size
        if self._budget.taken > self._budget.limit:
            raise OverloadedError("the requests under way take all memory there is for them; try again later")

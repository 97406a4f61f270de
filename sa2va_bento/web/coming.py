"""Bodies on their way: requests that were let in, and ask the model once they are there whole."""

import time
from dataclasses import dataclass, field
from typing import cast

from starlette.types import Scope

STATE = "coming"
"""Name in a request's state of what is noted of its body."""
GRACE_S = 0.25
"""In which a body that takes a place need not have come yet."""
BRISK = 256 * 1024
"""Bytes a second, from then on: one that comes slower takes no place until it is there."""
SURE = 64 * 1024
"""Bytes that nobody sends for nothing."""


@dataclass(eq=False)
class Coming:
    """A body on its way: how much has come since when, and whether its request asks the model now, or never will."""

    began: float = field(default_factory=time.monotonic)
    received: int = 0
    is_done: bool = False

    def is_brisk(self, now: float) -> bool:
        """Whether it will be there soon."""
        return not self.is_done and self.received >= (now - self.began - GRACE_S) * BRISK

    @property
    def is_sure(self) -> bool:
        """Whether so much has come that nobody only pretends."""
        return self.received >= SURE


def note_arrived(scope: Scope) -> None:
    """The body of a request is there, and it counts among those that wait; or nothing comes of it."""
    if coming := cast("Coming | None", scope.get("state", {}).get(STATE)):
        coming.is_done = True

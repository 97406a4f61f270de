"""The time by which a request must be answered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request

from sa2va_bento.errors import DeadlineExceededError
from sa2va_bento.settings import Settings


@dataclass(frozen=True)
class Deadline:
    """`at` on the event loop's clock, `timeout_s` seconds after the request's arrival."""

    at: float
    timeout_s: float

    @classmethod
    def of(cls, request: Request, settings: Settings) -> "Deadline":
        return cls(request.state.arrived + settings.timeout_s, settings.timeout_s)

    @property
    def left_s(self) -> float:
        """Seconds until then; negative once it has passed."""
        return self.at - asyncio.get_running_loop().time()

    @property
    def error(self) -> DeadlineExceededError:
        """What to raise when it has passed."""
        return DeadlineExceededError(f"no answer within {self.timeout_s:g} s")

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Interrupts the block when the time has come.

        Raises:
            DeadlineExceededError: it has.
        """
        try:
            async with asyncio.timeout_at(self.at):
                yield
        except TimeoutError:
            raise self.error from None

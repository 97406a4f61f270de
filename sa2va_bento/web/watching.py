"""An answer watched from the event loop while the model's threads make it."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import suppress

from sa2va_bento.result import Prediction, PredictRequest, StreamEvent
from sa2va_bento.web.deadline import Deadline
from sa2va_bento.web.runtime import Model

News = StreamEvent | Prediction | None
"""What happens to a request: events, at last its prediction; None stands for some time of silence."""


class Watched:
    """A request under way. Made on the event loop; whoever makes it calls `cancel` in the end."""

    def __init__(self, model: Model, request: PredictRequest) -> None:
        """Raises OverloadedError when too many requests wait."""
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[StreamEvent | Future[Prediction]] = asyncio.Queue()
        self._answer = model.submit(request, self._tell)
        self._answer.add_done_callback(self._tell)

    def cancel(self) -> None:
        """Takes the request out of the model, unless it is answered."""
        self._answer.cancel()

    async def news(self, silence_s: float, deadline: Deadline) -> AsyncIterator[News]:
        """What happens, in order, and None after each `silence_s` seconds of silence.

        Raises:
            DeadlineExceededError: the deadline passed first.
            Sa2VAError: what the request failed with.
        """
        while True:
            try:
                async with asyncio.timeout(max(0, min(silence_s, deadline.left_s))):
                    item = await self._items.get()
            except TimeoutError:
                if deadline.left_s <= 0:
                    raise deadline.error from None
                yield None
                continue
            if isinstance(item, Future):
                yield item.result()
                return
            yield item

    def _tell(self, item: "StreamEvent | Future[Prediction]") -> None:
        with suppress(RuntimeError):  # the loop has closed meanwhile
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

"""The one way in: a request is given to the model, and its answer awaited as a whole or watched while it grows.

The event loop only reads and waits. What is asked is parsed and decoded, and the answer rendered, by the model's worker
threads (`HttpExchange`); the model itself runs on its own.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress

from starlette.requests import Request

from sa2va_bento.errors import DeadlineExceededError, RequestCancelledError
from sa2va_bento.settings import Settings
from sa2va_bento.types import Prediction, PredictRequest, RequestContext, Stage, StreamEvent
from sa2va_bento.web.body import Fields, read_fields
from sa2va_bento.web.errors import context_of
from sa2va_bento.web.runtime import Model, Runtime
from sa2va_bento.web.sse import HEARTBEAT, until_disconnected


class HttpExchange(ABC):
    """A request and its answer as bytes, in the terms of an endpoint. All but making it runs in worker threads."""

    def __init__(self, request: Request, fields: Fields, settings: Settings) -> None:
        self.context, self.scope = context_of(request.scope), request.scope
        self.fields, self.settings = fields, settings
        self.post: Callable[[bytes | bool], None] = lambda item: None
        """Takes what happens to the event loop: whether the answer comes in events, and then these."""

    @abstractmethod
    def read(self) -> PredictRequest:
        """Parses and decodes. Raises Sa2VAError."""

    @property
    @abstractmethod
    def is_streamed(self) -> bool:
        """Whether the answer comes in events; known once the request was read."""

    @abstractmethod
    def event(self, event: StreamEvent) -> bytes | None:
        """What the client is told of an event."""

    @abstractmethod
    def render(self, prediction: Prediction) -> bytes:
        """The answer, or the end of its stream."""

    def begin(self) -> bool:
        self.post(self.is_streamed)
        return self.is_streamed

    def tell(self, event: StreamEvent) -> None:
        if data := self.event(event):
            self.post(data)


ExchangeType = Callable[[Request, Fields, Settings], HttpExchange]


async def accept(request: Request, runtime: Runtime, exchange: ExchangeType) -> "Accepted":
    """Reads a request's body and hands it to the model, under its deadline.

    Raises:
        Sa2VAError: whatever is wrong with it before that: no model, too many requests, an unknown content type.
    """
    context = context_of(request.scope)
    async with kept(context):
        model = runtime.model
        fields = await read_fields(request, runtime.settings)
    context.clock.lap(Stage.RECEIVE)
    return Accepted(model, exchange(request, fields, runtime.settings))


class Accepted:
    """A request under way. Made on the event loop; whoever makes it calls `cancel` in the end."""

    def __init__(self, model: Model, exchange: HttpExchange) -> None:
        """Raises OverloadedError when too many requests wait."""
        self.exchange, self._context = exchange, exchange.context
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[bytes | bool | Future[bytes]] = asyncio.Queue()
        exchange.post = self._post
        self._answer = model.answer(exchange)

    def cancel(self) -> None:
        """Takes the request out of the model, unless it is answered."""
        self._answer.cancel()

    async def whole(self, request: Request) -> bytes:
        """The answer; cancelled when the deadline passes or the client goes away.

        Raises:
            Sa2VAError: what the request failed with.
        """
        answer = asyncio.wrap_future(self._answer)
        gone = asyncio.ensure_future(until_disconnected(request.receive))
        try:
            async with kept(self._context):
                await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    raise RequestCancelledError("the client went away")
                return answer.result()
        finally:
            answer.cancel()
            gone.cancel()

    async def begun(self) -> bool:
        """Waits until the request is sound and with the engine; whether its answer comes in events.

        Raises:
            Sa2VAError: what is wrong with the request.
        """
        self._answer.add_done_callback(self._post)
        try:
            async with kept(self._context):
                first = await self._items.get()
            return first if isinstance(first, bool) else bool(first.result() if isinstance(first, Future) else first)
        except BaseException:
            self.cancel()
            raise

    async def events(self, silence_s: float) -> AsyncIterator[bytes]:
        """The rendered events in order and a comment after each `silence_s` seconds of silence; the end of the stream.

        Raises:
            DeadlineExceededError: the deadline passed first.
            Sa2VAError: what the request failed with.
        """
        while True:
            try:
                async with asyncio.timeout(max(0, min(silence_s, self._context.left_s))):
                    item = await self._items.get()
            except TimeoutError:
                if self._context.left_s <= 0:
                    raise late(self._context) from None
                yield HEARTBEAT
                continue
            if isinstance(item, Future):
                yield item.result()
                return
            if isinstance(item, bytes):
                yield item

    def _post(self, item: "bytes | bool | Future[bytes]") -> None:
        with suppress(RuntimeError):  # the loop has closed meanwhile
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)


@asynccontextmanager
async def kept(context: RequestContext) -> AsyncIterator[None]:
    """Interrupts the block when the request's deadline has come.

    Raises:
        DeadlineExceededError: it has.
    """
    try:
        async with asyncio.timeout(max(0, context.left_s)):
            yield
    except TimeoutError:
        raise late(context) from None


def late(context: RequestContext) -> DeadlineExceededError:
    """What to raise when a request's deadline has passed."""
    if context.deadline is None:
        return DeadlineExceededError("no answer in time")
    return DeadlineExceededError(f"no answer within {round(context.deadline - context.clock.started, 3):g} s")

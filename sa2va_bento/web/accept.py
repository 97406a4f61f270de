"""The one way in: a request is given to the model, and its answer awaited as a whole or watched while it grows.

The event loop only reads and waits. What is asked is parsed and decoded, and the answer rendered, by the model's worker
threads (`HttpExchange`); the model itself runs on its own.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TypeVar

from starlette.requests import Request

from sa2va_bento.errors import DeadlineExceededError, RequestCancelledError
from sa2va_bento.types import Prediction, PredictRequest, RequestContext, Stage, StreamEvent
from sa2va_bento.web.body import Fields, read_fields
from sa2va_bento.web.coming import note_arrived
from sa2va_bento.web.errors import context_of
from sa2va_bento.web.fetch import FetchPolicy, fetch, is_url
from sa2va_bento.web.request import PictureSource
from sa2va_bento.web.runtime import Model, Runtime
from sa2va_bento.web.sse import HEARTBEAT, until_disconnected


class HttpExchange(ABC):
    """One request and its answer as bytes, in the terms of an endpoint. Made on the event loop, where `begun`, `whole`,
    `events` and `cancel` belong; the model's threads call the others."""

    def __init__(self, request: Request, fields: Fields, runtime: Runtime) -> None:
        self.context, self.scope = context_of(request.scope), request.scope
        self.fields: Fields = fields
        self.settings = runtime.settings
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[bytes | bool | Future[bytes]] = asyncio.Queue()
        self._answer: Future[bytes] = Future()
        self.source: PictureSource | None = None
        """The picture, once the request was parsed."""

    @abstractmethod
    def parse(self) -> None:
        """Parses the fields, once, and finds the picture's source. Raises Sa2VAError."""

    @abstractmethod
    def read(self) -> PredictRequest:
        """Parses, unless that is done, and decodes. Raises Sa2VAError."""

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
        self._post(self.is_streamed)
        return self.is_streamed

    def tell(self, event: StreamEvent) -> None:
        if data := self.event(event):
            self._post(data)

    def start(self, model: Model) -> None:
        """Hands the request to the model; whoever does that calls `cancel` in the end. Raises OverloadedError."""
        self._answer = model.answer(self)

    async def fetch_picture(self, model: Model) -> None:
        """Fetches a picture that is given by its URL. Raises BadRequestError and PayloadTooLargeError."""
        await asyncio.wrap_future(model.in_worker(self.parse))
        if self.source and is_url(self.source.text):
            fetched = await fetch(self.source.text, FetchPolicy.of(self.settings), self.source.field)
            self.source = replace(self.source, fetched=fetched)

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
            async with kept(self.context):
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
            async with kept(self.context):
                first = await self._items.get()
            return bool(first.result() if isinstance(first, Future) else first)
        except BaseException:
            self.cancel()
            raise

    async def events(self) -> AsyncIterator[bytes]:
        """The rendered events in order, a comment after each silence, and the end of the stream.

        Raises:
            DeadlineExceededError: the deadline passed first.
            Sa2VAError: what the request failed with.
        """
        while True:
            try:
                async with asyncio.timeout(max(0, min(self.settings.heartbeat_s, self.context.left_s))):
                    item = await self._items.get()
            except TimeoutError:
                if self.context.left_s <= 0:
                    raise late(self.context) from None
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


ExchangeType = TypeVar("ExchangeType", bound=HttpExchange)


async def accept(
    request: Request, runtime: Runtime, exchange_type: Callable[[Request, Fields, Runtime], ExchangeType]
) -> ExchangeType:
    """Reads a request's body and hands it to the model, under its deadline.

    Raises:
        Sa2VAError: whatever is wrong with it before that: no model, too many requests, an unknown content type.
    """
    context = context_of(request.scope)
    try:
        async with kept(context):
            model = runtime.model
            model.check_room(context.left_s)  # before anything is read
            fields = await read_fields(request, runtime.settings)
            exchange = exchange_type(request, fields, runtime)
            if runtime.settings.url_hosts:
                await exchange.fetch_picture(model)
        context.lap(Stage.RECEIVE)
        exchange.start(model)
    finally:
        note_arrived(request.scope)
    return exchange


@asynccontextmanager
async def kept(context: RequestContext) -> AsyncGenerator[None]:
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
    return DeadlineExceededError(
        f"no answer within {context.timeout_s:g} s" if context.timeout_s else "no answer in time"
    )

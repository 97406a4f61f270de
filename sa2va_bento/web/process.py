"""`POST /process`, and `POST /process_stream`: the same request, answered as server-sent events while the model works.

The stream has `start` at once, then `token` and `segment` as they come, at last `done` with the whole answer, or
`error`. What is wrong with a request before the model has it is an ordinary HTTP error.
"""

import json
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from sa2va_bento.types import Prediction, PredictRequest, SegmentReady, StreamEvent, TextDelta
from sa2va_bento.web.accept import HttpExchange, accept
from sa2va_bento.web.body import Fields, parse_json_object
from sa2va_bento.web.errors import known_error, request_id_of
from sa2va_bento.web.rendering import to_response, to_segment
from sa2va_bento.web.request import PictureSource, known_adapter, to_predict_request
from sa2va_bento.web.runtime import Runtime
from sa2va_bento.web.schemas import SegmentOut, parse_process_request
from sa2va_bento.web.sse import EventStream, sse_event


async def answer_process(request: Request, runtime: Runtime) -> Response:
    """Answers a request.

    Raises:
        Sa2VAError: whatever is wrong with it, or with us.
    """
    exchange = await accept(request, runtime, ProcessExchange)
    return Response(await exchange.whole(request), media_type="application/json")


async def answer_process_stream(request: Request, runtime: Runtime) -> Response:
    """Accepts a request and starts its stream.

    Raises:
        Sa2VAError: whatever is wrong before that.
    """
    exchange = await accept(request, runtime, ProcessStreamExchange)
    await exchange.begun()
    return EventStream(_events(exchange), exchange.cancel)


async def _events(exchange: "ProcessStreamExchange") -> AsyncIterator[bytes]:
    scope = exchange.scope
    yield sse_event(json.dumps({"request_id": request_id_of(scope), "model": exchange.model_name}), "start")
    try:
        async for data in exchange.events():
            yield data
    except Exception as error:
        known = known_error(error, scope)
        failure = {"error": known.message, "status": known.status, "request_id": request_id_of(scope)}
        yield sse_event(json.dumps(failure), "error")


class ProcessExchange(HttpExchange):
    """A request to `/process`, and its answer as JSON."""

    @property
    def is_streamed(self) -> bool:
        return False

    def __init__(self, request: Request, fields: Fields, runtime: Runtime) -> None:
        super().__init__(request, fields, runtime)
        self._segments: list[SegmentOut] = []

    def parse(self) -> None:
        fields = parse_json_object(self.fields) if isinstance(self.fields, bytes) else self.fields
        self.request, self._warnings = parse_process_request(fields)
        self.fields = {}  # megabytes that nobody reads any more
        self.source = PictureSource(self.request.base64Image)
        self.model_name = known_adapter(self.request.adapter, self.settings) or self.settings.model_name

    def read(self) -> PredictRequest:
        if self.source is None:
            self.parse()
        assert self.source
        wanted = to_predict_request(self.request, self.source, self.settings, self.context)
        self._overlay_on = wanted.image if self.request.include_overlay else None
        self.request, self.source = self.request.model_copy(update={"base64Image": "", "regions": []}), None
        return wanted

    def event(self, event: StreamEvent) -> bytes | None:
        return None

    def render(self, prediction: Prediction) -> bytes:
        return self._whole(prediction).encode()

    def _whole(self, prediction: Prediction) -> str:
        response = to_response(
            prediction,
            model=self.model_name,
            context=self.context,
            mask_format=self.request.mask_format,
            overlay_on=self._overlay_on,
            warnings=self._warnings,
            encoded=self._segments,
        )
        return response.model_dump_json(ensure_ascii=self.is_streamed)


class ProcessStreamExchange(ProcessExchange):
    """The same, and its answer as events; their JSON is ASCII, so that no character in it ends a line."""

    @property
    def is_streamed(self) -> bool:
        return True

    def event(self, event: StreamEvent) -> bytes | None:
        match event:
            case TextDelta():
                return sse_event(json.dumps({"text": event.text}), "token")
            case SegmentReady():
                segment = to_segment(event.index, event.segment, self.request.mask_format)
                self._segments.append(segment)
                return sse_event(segment.model_dump_json(ensure_ascii=True), "segment")

    def render(self, prediction: Prediction) -> bytes:
        return sse_event(self._whole(prediction), "done")

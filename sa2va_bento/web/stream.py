"""`POST /process_stream`: the request of `POST /process`, answered as server-sent events while the model works.

`start` at once, then `token` and `segment` as they come, at last `done` with the whole answer, or `error`. What is
wrong with a request before it is accepted is an ordinary HTTP error.
"""

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from sa2va_bento.result import Prediction, SegmentReady, TextDelta
from sa2va_bento.schemas import SegmentOut
from sa2va_bento.web.conversion import to_segment
from sa2va_bento.web.deadline import Deadline
from sa2va_bento.web.process import Asked, read_fields
from sa2va_bento.web.responses import known_error, request_id_of
from sa2va_bento.web.runtime import Runtime
from sa2va_bento.web.sse import HEARTBEAT, EventStream, event
from sa2va_bento.web.watching import News, Watched


async def answer_stream(request: Request, runtime: Runtime) -> Response:
    """Accepts a request and starts its stream.

    Raises:
        Sa2VAError: whatever is wrong before that.
    """
    settings, deadline = runtime.settings, Deadline.of(request, runtime.settings)
    async with deadline.kept():
        model = runtime.model
        fields = await read_fields(request, settings)
        asked = await runtime.in_media_pool(lambda: Asked.from_fields(fields, settings))
        watched = Watched(model, asked.wanted)
    told = _Told(request, runtime, asked).events(watched.news(settings.heartbeat_s, deadline))
    return EventStream(told, watched.cancel, deadline)


class _Told:
    """One request's news as the events of its stream."""

    def __init__(self, request: Request, runtime: Runtime, asked: Asked) -> None:
        self._scope, self._arrived = request.scope, request.state.arrived
        self._runtime, self._asked = runtime, asked
        self._clock = asyncio.get_running_loop().time
        self._segments: list[SegmentOut] = []

    async def events(self, news: AsyncIterator[News]) -> AsyncIterator[bytes]:
        started = {"request_id": request_id_of(self._scope), "model": self._runtime.settings.model_name}
        yield event(json.dumps(started), "start")
        try:
            async for item in news:
                yield await self._event(item)
        except Exception as error:
            yield event(json.dumps(self._failure(error)), "error")

    async def _event(self, item: News) -> bytes:
        match item:
            case None:
                return HEARTBEAT
            case TextDelta():
                return event(json.dumps({"text": item.text}), "token")
            case SegmentReady():
                return event(await self._runtime.in_media_pool(lambda: self._segment(item)), "segment")
            case Prediction():
                return event(await self._runtime.in_media_pool(lambda: self._whole(item)), "done")

    def _segment(self, ready: SegmentReady) -> str:
        segment = to_segment(ready.index, ready.segment, self._asked.request.mask_format)
        self._segments.append(segment)
        return segment.model_dump_json(ensure_ascii=True)

    def _whole(self, prediction: Prediction) -> str:
        total_ms = 1e3 * (self._clock() - self._arrived)
        name, request_id = self._runtime.settings.model_name, request_id_of(self._scope)
        response = self._asked.response(prediction, name, request_id, total_ms, self._segments)
        return response.model_dump_json(ensure_ascii=True)

    def _failure(self, error: Exception) -> dict[str, object]:
        known = known_error(error, self._scope)
        return {"error": known.message, "status": known.status, "request_id": request_id_of(self._scope)}

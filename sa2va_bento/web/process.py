"""`POST /process`: from the bytes of a request to the bytes of its answer.

The event loop only reads and waits. Parsing, decoding and encoding run in the media threads, the model on its own.
"""

import asyncio
import base64
import json
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import Response

from sa2va_bento.errors import BadRequestError, RequestCancelledError, UnsupportedMediaError
from sa2va_bento.result import Prediction, PredictRequest
from sa2va_bento.schemas import ProcessRequest, ProcessResponse, SegmentOut, parse_process_request
from sa2va_bento.settings import Settings
from sa2va_bento.web.conversion import to_predict_request, to_response
from sa2va_bento.web.deadline import Deadline
from sa2va_bento.web.responses import request_id_of
from sa2va_bento.web.runtime import Runtime
from sa2va_bento.web.sse import until_disconnected

UPLOAD = "image"
"""Name of the form's file field."""

_PLAIN_FIELDS = ("base64Image", "prompt", "mask_format")


async def answer_process(request: Request, runtime: Runtime) -> Response:
    """Answers a request.

    Raises:
        Sa2VAError: whatever is wrong with it, or with us.
    """
    async with Deadline.of(request, runtime.settings).kept():
        return await _answer(request, runtime)


async def _answer(request: Request, runtime: Runtime) -> Response:
    settings, model = runtime.settings, runtime.model
    clock = asyncio.get_running_loop().time
    fields = await read_fields(request, settings)
    asked = await runtime.in_media_pool(lambda: Asked.from_fields(fields, settings))
    prediction = await unless_gone(request, model.submit(asked.wanted))

    def render() -> bytes:
        total_ms = 1e3 * (clock() - request.state.arrived)
        response = asked.response(prediction, settings.model_name, request_id_of(request.scope), total_ms)
        return response.model_dump_json().encode()

    return Response(await runtime.in_media_pool(render), media_type="application/json")


@dataclass(frozen=True)
class Asked:
    """A request as its client sent it, what was ignored of it, and as the model takes it."""

    request: ProcessRequest
    warnings: tuple[str, ...]
    wanted: PredictRequest

    @classmethod
    def from_fields(cls, fields: bytes | dict[str, object], settings: Settings) -> "Asked":
        """Parses and decodes. Slow for large pictures: not for the event loop.

        Raises:
            Sa2VAError: whatever is wrong with the request.
        """
        given = parse_json_object(fields) if isinstance(fields, bytes) else fields
        request, warnings = parse_process_request(given)
        return cls(request, tuple(warnings), to_predict_request(request, settings))

    def response(
        self,
        prediction: Prediction,
        model: str,
        request_id: str,
        total_ms: float,
        encoded: Sequence[SegmentOut] = (),
    ) -> ProcessResponse:
        """The answer in the request's terms, its first segments perhaps `encoded` already. Not for the event loop."""
        return to_response(
            prediction,
            model=model,
            request_id=request_id,
            mask_format=self.request.mask_format,
            overlay_on=self.wanted.image if self.request.include_overlay else None,
            warnings=self.warnings,
            total_ms=total_ms,
            encoded=encoded,
        )


async def unless_gone(request: Request, future: "Future[Prediction]") -> Prediction:
    """The future's result; cancels it when the deadline passes or the client goes away."""
    answer = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(until_disconnected(request.receive))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise RequestCancelledError("the client went away")
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


async def read_fields(request: Request, settings: Settings) -> bytes | dict[str, object]:
    """The body as it is if it is JSON (parsed off the loop), the fields of a form otherwise.

    Raises:
        UnsupportedMediaError: any other content type.
    """
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if content_type == "application/json" or content_type.endswith("+json"):
        return await request.body()
    if content_type == "multipart/form-data":
        return await _read_form(request, settings.max_body_bytes)
    raise UnsupportedMediaError("content type must be application/json or multipart/form-data")


def parse_json_object(body: bytes) -> dict[str, object]:
    """Raises BadRequestError unless the body is one JSON object."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequestError("the body is not valid JSON") from None
    if not isinstance(fields, dict):
        raise BadRequestError("the body must be a JSON object")
    return fields


async def _read_form(request: Request, limit: int) -> dict[str, object]:
    """Fields of a multipart form: the file `image` as base64Image, numbers and lists as JSON."""
    try:
        async with request.form(max_files=1, max_fields=64, max_part_size=limit) as form:
            fields: dict[str, object] = {}
            for name, value in form.multi_items():
                target = "base64Image" if name == UPLOAD else name
                if target == "base64Image" and target in fields:
                    raise BadRequestError(f"the form must hold one picture, as {UPLOAD} or as base64Image")
                if isinstance(value, str):
                    fields[name] = value if name in _PLAIN_FIELDS else _json_or_text(value)
                elif target == "base64Image":
                    fields[target] = base64.b64encode(await value.read()).decode("ascii")
                else:
                    raise BadRequestError(f"the file of the form must be named {UPLOAD}")
            return fields
    except (MultiPartException, HTTPException) as error:
        detail = error.detail if isinstance(error, HTTPException) else error.message
        raise BadRequestError(f"the form can't be read: {detail.lower()}") from None


def _json_or_text(value: str) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value

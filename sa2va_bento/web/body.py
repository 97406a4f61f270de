"""The body of a request: JSON as its bytes, a multipart form as its fields."""

import base64
import json

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from sa2va_bento.errors import BadRequestError, UnsupportedMediaError
from sa2va_bento.settings import Settings

UPLOAD = "image"
"""Name of the form's file field."""

_PLAIN_FIELDS = ("base64Image", "prompt", "mask_format")

Fields = bytes | dict[str, object]
"""JSON as it came (it is parsed off the event loop), or the fields of a form."""


async def read_fields(request: Request, settings: Settings) -> Fields:
    """The body as it is if it is JSON, the fields of a form otherwise.

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

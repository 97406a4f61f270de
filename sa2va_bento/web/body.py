"""The body of a request: JSON as its bytes, a multipart form as its fields."""

import base64
import json
from typing import cast

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from sa2va_bento.errors import BadRequestError, UnsupportedMediaError
from sa2va_bento.settings import Settings

UPLOAD = "image"
"""Name of the form's file field."""

REQUIRED = ("base64Image", "prompt")
BOOLEANS = ("include_overlay",)
_PLAIN_FIELDS = ("base64Image", "prompt", "mask_format")
_TRUTH = {"true": True, "1": True, "on": True, "yes": True, "false": False, "0": False, "off": False, "no": False}

MOST_PARTS = 300_000
"""Objects, lists and commas in a body: sixteen masks as plain run lengths, each of 18,000 runs."""

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
    """The fields of a JSON body. Objects and lists are counted before anything is made of them: reading what is within
    the limit takes some 20 ms.

    Raises:
        BadRequestError: it is not one JSON object, or it has too many parts.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > MOST_PARTS:
        raise BadRequestError(f"the body has more than {MOST_PARTS} parts")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequestError("the body is not valid JSON") from None
    if not isinstance(fields, dict):
        raise BadRequestError("the body must be a JSON object")
    return cast("dict[str, object]", fields)


class _FormParser(MultiPartParser):
    """Keeps a file in memory, as large as a body may be: nothing depends on room for temporary files."""

    def __init__(self, request: Request, limit: int) -> None:
        self.spool_max_size = limit + 1
        super().__init__(request.headers, request.stream(), max_files=1, max_fields=64, max_part_size=limit)


async def _read_form(request: Request, limit: int) -> dict[str, object]:
    """Fields of a multipart form: the file `image` as base64Image, numbers and lists as JSON."""
    try:
        form = await _FormParser(request, limit).parse()
    except (MultiPartException, HTTPException) as error:
        detail = error.detail if isinstance(error, HTTPException) else error.message
        raise BadRequestError(f"the form can't be read: {detail.lower()}") from None
    except (LookupError, ValueError):  # a character set that there is not, a header that is none
        raise BadRequestError("the form can't be read: its headers make no sense") from None
    try:
        return await _fields_of(form)
    finally:
        await form.close()


async def _fields_of(form: FormData) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, value in form.multi_items():
        target = "base64Image" if name == UPLOAD else name
        if value == "" and target not in REQUIRED:
            continue  # what a page sends for a field that was left empty
        if target == "base64Image" and target in fields:
            raise BadRequestError(f"the form must hold one picture, as {UPLOAD} or as base64Image")
        if isinstance(value, str):
            fields[target] = value if target in _PLAIN_FIELDS else _json_or_text(target, value)
        elif target == "base64Image":
            fields[target] = base64.b64encode(await value.read()).decode("ascii")
        else:
            raise BadRequestError(f"the file of the form must be named {UPLOAD}")
    return fields


def _json_or_text(name: str, value: str) -> object:
    """A field's value as JSON, or as it is; what pages and scripts write for true and false, too."""
    if name in BOOLEANS and value.strip().lower() in _TRUTH:
        return _TRUTH[value.strip().lower()]
    if sum(map(value.count, ",[{")) > MOST_PARTS:
        raise BadRequestError(f"{name[:64]}: more than {MOST_PARTS} parts")
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value

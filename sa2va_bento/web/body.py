"""The body of a request: JSON as its bytes, a multipart form as its fields."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncGenerator, Iterable
from typing import cast
from urllib.parse import parse_qsl

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
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

MOST_FIELDS = 64
"""Of a form."""
MOST_PREAMBLE = 8 * 1024
"""Bytes before the first boundary of a form."""
_EXTENDED_NAME = re.compile(rb";\s*filename\*", re.IGNORECASE)
"""As in RFC 5987, or RFC 2231."""
GENERATED_CLIENT = "BentoML HTTP Client/"
"""How BentoML's client calls itself. The fields of its forms are JSON, texts too, and a form without a file is
urlencoded."""

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
    is_generated = request.headers.get("user-agent", "").startswith(GENERATED_CLIENT)
    if content_type == "multipart/form-data":
        return await _read_form(request, settings.max_body_bytes, is_json=is_generated)
    if content_type == "application/x-www-form-urlencoded" and is_generated:
        return await asyncio.to_thread(_read_urlencoded, await request.body())
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
    """Keeps a file in memory, as large as a body may be: nothing depends on room for temporary files. Text before the
    first boundary, and file names in the extended notation, which the parser does not know, are passed over; a form
    without its last boundary is incomplete."""

    def __init__(self, request: Request, limit: int) -> None:
        self.spool_max_size = limit + 1
        self._has_ended = False
        stream = _without_preamble(request.stream(), request.headers["content-type"])
        super().__init__(request.headers, stream, max_files=1, max_fields=MOST_FIELDS, max_part_size=limit)

    def on_headers_finished(self) -> None:
        part = self._current_part
        if part.content_disposition and _EXTENDED_NAME.search(part.content_disposition):
            part.content_disposition += b"; filename=file"  # it is a file; its name is nobody's business
        super().on_headers_finished()

    def on_end(self) -> None:
        self._has_ended = True

    async def parse(self) -> FormData:
        form = await super().parse()
        if not self._has_ended:
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("It ends before its last boundary")
        return form


async def _without_preamble(stream: AsyncGenerator[bytes], content_type: str) -> AsyncGenerator[bytes]:
    """A form from its first boundary on (RFC 2046 5.1.1 lets mail programs say something before)."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    first = re.compile(rb"(?:\A|\n)(--%s(?:--|[ \t]*\r?\n))" % re.escape(boundary))
    begun, found = b"", None
    async for piece in stream:
        if not found:
            piece = begun = begun + piece
            if not (found := first.search(begun)):
                if len(begun) > MOST_PREAMBLE:
                    break
                continue
            piece = begun[found.start(1) :]
        yield piece
    if not found:
        raise MultiPartException("There is no boundary at its beginning")


async def _read_form(request: Request, limit: int, *, is_json: bool) -> dict[str, object]:
    """Fields of a multipart form: the file `image` as base64Image, numbers and lists as JSON."""
    try:
        form = await _FormParser(request, limit).parse()
    except (MultiPartException, HTTPException) as error:
        detail = error.detail if isinstance(error, HTTPException) else error.message
        raise BadRequestError(f"the form can't be read: {detail.lower()}") from None
    except (LookupError, ValueError):  # a character set that there is not, a header that is none
        raise BadRequestError("the form can't be read: its headers make no sense") from None
    try:
        return await asyncio.to_thread(_fields_of, form.multi_items(), is_json=is_json)
    finally:
        await form.close()


def _read_urlencoded(body: bytes) -> dict[str, object]:
    """The form of BentoML's client that has no file."""
    try:
        items = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise BadRequestError("the form can't be read") from None
    return _fields_of(items, is_json=True)


def _fields_of(items: Iterable[tuple[str, str | UploadFile]], *, is_json: bool) -> dict[str, object]:
    """The fields by their names in JSON; texts are as they came, or JSON too."""
    fields: dict[str, object] = {}
    plain = () if is_json else _PLAIN_FIELDS
    for name, value in items:
        target = "base64Image" if name == UPLOAD else name
        if value == "" and target not in REQUIRED:
            continue  # what a page sends for a field that was left empty
        if target == "base64Image" and target in fields:
            raise BadRequestError(f"the form must hold one picture, as {UPLOAD} or as base64Image")
        if isinstance(value, str):
            fields[target] = value if target in plain else json_or_text(target, value)
        elif target == "base64Image":
            fields[target] = base64.b64encode(value.file.read()).decode("ascii")
        else:
            raise BadRequestError(f"the file of the form must be named {UPLOAD}")
    return fields


def json_or_text(name: str, value: str) -> object:
    """A field's value as JSON, or as it is; what pages and scripts write for true and false, too."""
    if name in BOOLEANS and value.strip().lower() in _TRUTH:
        return _TRUTH[value.strip().lower()]
    if sum(map(value.count, ",[{")) > MOST_PARTS:
        raise BadRequestError(f"{name[:64]}: more than {MOST_PARTS} parts")
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value

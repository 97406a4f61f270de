"""What a video request carries, written to its job's folder as it comes: however large it is, little is in memory."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError, UnsupportedMediaError
from sa2va_bento.jobs.files import room_needed
from sa2va_bento.jobs.job import VIDEO
from sa2va_bento.media.images import decode_base64
from sa2va_bento.settings import Settings
from sa2va_bento.web.body import GENERATED_CLIENT, json_or_text, parse_json_object
from sa2va_bento.web.fetch import NOT_FETCHED, FetchPolicy, fetch, is_url
from sa2va_bento.web.jobs.schemas import MOST_FRAME_FILES

PIECE = 2**20
"""Bytes that are parsed and written at once, off the event loop."""
MOST_FIELD_BYTES = 2**20
MOST_FIELDS = 64
FRAMES = "frames"
PLAIN = frozenset({"prompt", "mask_format", "video"})


@dataclass
class Upload:
    """What came: the plain fields, and the names of the files in the job's folder, in order. `digest` is of all that
    came, so that a repeated request is known."""

    fields: dict[str, object] = field(default_factory=dict[str, object])
    files: list[str] = field(default_factory=list[str])
    digest: str = ""


async def receive(request: Request, folder: Path, settings: Settings) -> Upload:
    """Reads a request to its end; what it holds of video or pictures is in `folder` then.

    Raises:
        BadRequestError: it can't be read, or holds no video.
        PayloadTooLargeError: it is larger than a video may be.
        UnsupportedMediaError: it is neither a form nor JSON.
        NoRoomError: the disk is full.
    """
    content_type = request.headers.get("content-type", "application/json")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        upload = await _receive_form(request, content_type, folder, settings.max_video_bytes)
    elif kind == "application/json" or kind.endswith("+json"):
        upload = await _receive_json(request, folder, settings)
    else:
        raise UnsupportedMediaError("content type must be multipart/form-data or application/json")
    if not upload.files:
        raise BadRequestError("video: field required (a form carries it as a file, or pictures as files named frames)")
    return upload


async def _receive_form(request: Request, content_type: str, folder: Path, limit: int) -> Upload:
    is_generated = request.headers.get("user-agent", "").startswith(GENERATED_CLIENT)
    form = _Form(content_type, folder, () if is_generated else PLAIN)
    try:
        taken, pending = 0, b""
        async for piece in request.stream():
            taken += len(piece)
            if taken > limit:
                raise PayloadTooLargeError(f"video: over the limit of {limit / 2**20:g} MiB")
            pending += piece
            if len(pending) >= PIECE:
                await asyncio.to_thread(form.feed, pending)
                pending = b""
        await asyncio.to_thread(form.feed, pending)
        return form.finish()
    finally:
        form.close()


async def _receive_json(request: Request, folder: Path, settings: Settings) -> Upload:
    body = await request.body()
    upload = await asyncio.to_thread(_from_json, body, folder)
    video = upload.fields.pop("video", None)
    if isinstance(video, str) and is_url(video):
        if not settings.url_hosts:
            raise BadRequestError(f"video: the URL {NOT_FETCHED}")
        data = await fetch(video, FetchPolicy.of(settings), "video")
        await asyncio.to_thread(_write, folder / VIDEO, data)
        upload.files = [VIDEO]
    return upload


def _from_json(body: bytes, folder: Path) -> Upload:
    fields = parse_json_object(body)
    upload = Upload(fields, digest=hashlib.sha256(body).hexdigest())
    video, frames = fields.get("video"), fields.pop(FRAMES, None)
    if video is not None and frames:
        raise BadRequestError("video: give it or frames, not both")
    if isinstance(video, str) and not is_url(video):
        _write(folder / VIDEO, decode_base64(video, "video"))
        upload.files = [VIDEO]
    elif video is not None and not isinstance(video, str):
        raise BadRequestError("video: input should be a valid string")
    if frames:
        upload.files = _write_frames(frames, folder)
    return upload


def _write_frames(frames: object, folder: Path) -> list[str]:
    if not isinstance(frames, list) or not all(isinstance(frame, str) for frame in cast("list[object]", frames)):
        raise BadRequestError("frames: input should be a list of pictures as base64")
    texts = cast("list[str]", frames)
    if len(texts) > MOST_FRAME_FILES:
        raise BadRequestError(f"frames: more than {MOST_FRAME_FILES}")
    names = [_frame_name(place) for place in range(len(texts))]
    for place, (name, text) in enumerate(zip(names, texts, strict=True)):
        _write(folder / name, decode_base64(text, f"frames[{place}]"))
    return names


def _frame_name(place: int) -> str:
    return f"frame{place:05d}"


def _write(path: Path, data: bytes) -> None:
    with room_needed():
        path.write_bytes(data)


class _Form:
    """Takes a multipart form apart while it comes: files `video` and `frames` to the disk, other parts to memory."""

    def __init__(self, content_type: str, folder: Path, plain: Collection[str]) -> None:
        """`plain` are the fields whose text is no JSON."""
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise BadRequestError("the form can't be read: its content type has no boundary")
        self._folder, self._plain = folder, plain
        self._upload, self._hash = Upload(), hashlib.sha256()
        self._headers: dict[str, bytes] = {}
        self._header_name = self._header_value = b""
        self._file: BinaryIO | None = None
        self._name, self._value = "", b""
        self._has_ended = False
        callbacks: dict[str, Callable[..., Any]] = {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_end": self._finished,
        }
        self._parser = MultipartParser(boundary, cast(Any, callbacks))

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        try:
            with room_needed():
                self._parser.write(data)
        except FormParserError as error:
            raise BadRequestError("the form can't be read: it is malformed") from error

    def finish(self) -> Upload:
        if not self._has_ended:
            raise BadRequestError("the form can't be read: it ends before its last boundary")
        self._upload.digest = self._hash.hexdigest()
        return self._upload

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._headers, self._header_name, self._header_value, self._value = {}, b"", b"", b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _headers_finished(self) -> None:
        disposition, options = parse_options_header(self._headers.get("content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if disposition != b"form-data" or not self._name:
            raise BadRequestError("the form can't be read: a part of it has no name")
        if b"filename" in options or b"filename*" in options:
            self._open()
        elif len(self._upload.fields) >= MOST_FIELDS:
            raise BadRequestError(f"the form has more than {MOST_FIELDS} fields")
        self._hash.update(b"\0" + self._name.encode() + b"\0")

    def _open(self) -> None:
        names, upload = {VIDEO: VIDEO, FRAMES: _frame_name(len(self._upload.files))}, self._upload
        if self._name not in names:
            raise BadRequestError("the files of the form must be named video or frames")
        if upload.files and (self._name == VIDEO or upload.files == [VIDEO]):
            raise BadRequestError("the form must hold one video, or pictures named frames")
        if len(upload.files) >= MOST_FRAME_FILES:
            raise BadRequestError(f"frames: more than {MOST_FRAME_FILES}")
        upload.files.append(names[self._name])
        self._file = (self._folder / names[self._name]).open("wb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        self._hash.update(piece)
        if self._file:
            self._file.write(piece)
            return
        self._value += piece
        if len(self._value) > MOST_FIELD_BYTES:
            raise PayloadTooLargeError(f"{self._name[:64]}: too long")

    def _end(self) -> None:
        if self._file:
            self.close()
            return
        try:
            text = self._value.decode()
        except UnicodeDecodeError:
            raise BadRequestError(f"{self._name[:64]}: not UTF-8") from None
        if self._name == FRAMES:
            raise BadRequestError("frames: a form carries them as files")
        if text == "" and self._name != "prompt":
            return  # what a page sends for a field that was left empty
        self._keep(text)

    def _keep(self, text: str) -> None:
        if self._name == VIDEO:  # base64 in a form
            _write(self._folder / VIDEO, decode_base64(text, VIDEO))
            self._upload.files.append(VIDEO)
            return
        self._upload.fields[self._name] = text if self._name in self._plain else json_or_text(self._name, text)

    def _finished(self) -> None:
        self._has_ended = True


def digest_of(upload: Upload) -> str:
    """What tells whether two requests are the same."""
    return hashlib.sha256((upload.digest + json.dumps(upload.fields, sort_keys=True)).encode()).hexdigest()

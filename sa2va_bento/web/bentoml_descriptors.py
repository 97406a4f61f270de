"""What BentoML needs to know of the endpoints: schemas for its documentation and clients, and hands off the body.

BentoML would parse and validate a request itself and answer mistakes in its own shapes. These descriptors give it
the schemas but hand the HTTP request on unread.
"""

from pathlib import Path
from typing import Annotated, Any

import bentoml
from pydantic import ConfigDict, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from sa2va_bento.web.jobs.schemas import JobQuestion, JobResultQuestion, JobStatus, VideoRequest, VideoResult
from sa2va_bento.web.schemas import HealthResponse, ProcessRequest, ProcessResponse


class Unread(bentoml.IODescriptor):
    """The one argument of an endpoint: its HTTP request."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    request: Request


class HandsOff(bentoml.IODescriptor):
    """Fields for the documentation, but the request for the endpoint."""

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> bentoml.IODescriptor:
        """BentoML's hook to parse a request."""
        return Unread.model_construct(request=request)


class ProcessInput(HandsOff, ProcessRequest):
    """Fields of `POST /process`, as BentoML's client is to take them: the picture as a file (a path, or a picture that
    Pillow has opened), or as text. With a file among the fields that client sends forms only."""

    image: Annotated[Path | None, WithJsonSchema({"type": "file", "format": "binary"})] = Field(
        default=None, description="The picture's file, in place of `base64Image`"
    )
    base64Image: str = Field(default="", description="The picture as base64 or as a data URL")  # noqa: N815


class VideoInput(HandsOff, VideoRequest):
    """Fields of `POST /process_video`, as BentoML's client is to take them: the video as a file, or as text."""

    video: Annotated[Path | None, WithJsonSchema({"type": "file", "format": "binary"})] = Field(  # type: ignore[assignment]
        default=None, description="The video's file"
    )


class JobOutput(bentoml.IODescriptor, JobStatus):
    """Where a job stands."""


class VideoOutput(JobOutput):
    """Where a job stands or, where that was waited for, its result: BentoML's client takes the fields of a schema and
    no others, of an object without any it takes all."""

    @classmethod
    def model_json_schema(cls, *_: Any, **__: Any) -> dict[str, Any]:
        return {"type": "object"}


class JobInput(HandsOff, JobQuestion):
    """Which job is meant."""


class JobResultInput(HandsOff, JobResultQuestion):
    """Which job's result, and how its masks are encoded."""


class JobResultOutput(bentoml.IODescriptor, VideoResult):
    """The result of a job."""


class NoInput(HandsOff):
    """An endpoint without fields; a body is ignored."""


class ProcessOutput(bentoml.IODescriptor, ProcessResponse):
    """Fields of the answer to `POST /process`."""


class EventOutput(bentoml.IODescriptor):
    """Server-sent events, which BentoML's client hands on as text, piece by piece as they come."""

    @classmethod
    def model_json_schema(cls, *_: Any, **__: Any) -> dict[str, Any]:
        return {"type": "string"}

    @classmethod
    async def to_http_response(cls, obj: Any, serde: Any) -> Response:
        """BentoML's hook to write an answer: the endpoint yields one response, which is the stream."""
        return await anext(obj)


class HealthOutput(bentoml.IODescriptor, HealthResponse):
    """Fields of the answer to `/health`."""

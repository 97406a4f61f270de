"""What BentoML needs to know of the endpoints: schemas for its documentation and clients, and hands off the body.

BentoML would parse and validate a request itself and answer mistakes in its own shapes. These descriptors give it
the schemas but hand the HTTP request on unread.
"""

from typing import Any

import bentoml
from pydantic import ConfigDict
from starlette.requests import Request

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
    """Fields of `POST /process`."""


class NoInput(HandsOff):
    """An endpoint without fields; a body is ignored."""


class ProcessOutput(bentoml.IODescriptor, ProcessResponse):
    """Fields of the answer to `POST /process`."""


class HealthOutput(bentoml.IODescriptor, HealthResponse):
    """Fields of the answer to `/health`."""

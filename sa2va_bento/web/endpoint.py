"""What an entry of the table of endpoints says."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from sa2va_bento.web.runtime import Runtime

Handler = Callable[[Request, Runtime], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """A method of a path. `handler` is None where BentoML has the route; `listed` is what `GET /` says of it. The rest
    is for the documentation: `takes` as JSON (and as a form), `answer` as JSON, or else `events`."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    name: str
    summary: str
    handler: Handler | None = None
    listed: str | None = None
    is_open: bool = False
    tag: Literal["answers", "video", "openai", "service"] = "service"
    takes: type[BaseModel] | None = None
    takes_form: bool = False
    answer: type[BaseModel] | Literal["object", "text", "page", "file", "nothing", "removed"] = "nothing"
    events: tuple[str, ...] = ()
    events_are: str = ""
    accepted: type[BaseModel] | None = None
    """What it answers with 202, where that is not the answer yet."""
    query: tuple[tuple[str, str, str], ...] = ()
    """Name, JSON type and description of what a URL's query may hold."""
    errors: tuple[int, ...] = ()
    not_ready: type[BaseModel] | None = None
    """What it answers with 503, where that is an answer of its own."""

    @property
    def documented_path(self) -> str:
        return self.path.replace(":path}", "}")

"""Errors as OpenAI's clients expect them under `/v1`: `{"error": {"message", "type", "param", "code"}}`.

The status decides which exception the official client raises; type and code are for programs that read them.
"""

import re

from starlette.types import Scope

from sa2va_bento.web.statuses import status_of

PREFIX = "/v1/"

_FIELD = re.compile(r"([A-Za-z_][\w.\[\]]{0,199}): ")
"""How messages about a field begin."""


def speaks_openai(scope: Scope) -> bool:
    """Whether the request's path is one of OpenAI's."""
    return f"{scope['path']}/".startswith(PREFIX)


def openai_error(status: int, message: str, code: str | None = None) -> dict[str, object]:
    """The body of an error; `param` is the field that the message begins with, if it does."""
    field, known = _FIELD.match(message) if status < 500 else None, status_of(status)
    error = {
        "message": message,
        "type": known.openai_type,
        "param": field.group(1) if field else None,
        "code": code or known.openai_code,
    }
    return {"error": error}

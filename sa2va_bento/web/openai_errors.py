"""Errors as OpenAI's clients expect them under `/v1`: `{"error": {"message", "type", "param", "code"}}`.

The status decides which exception the official client raises; type and code are for programs that read them.
"""

import re

from starlette.types import Scope

PREFIX = "/v1/"

_FIELD = re.compile(r"([A-Za-z_][\w.\[\]]{0,199}): ")
"""How messages about a field begin."""

_CODES = {
    400: None,
    401: "invalid_api_key",
    404: "not_found",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    500: "internal_error",
    503: "service_unavailable",
    504: "timeout",
}


def speaks_openai(scope: Scope) -> bool:
    """Whether the request's path is one of OpenAI's."""
    return scope["path"].startswith(PREFIX)


def openai_error(status: int, message: str, code: str | None = None) -> dict[str, object]:
    """The body of an error; `param` is the field that the message begins with, if it does."""
    field = _FIELD.match(message) if status < 500 else None
    error = {
        "message": message,
        "type": _type(status),
        "param": field.group(1) if field else None,
        "code": code or _CODES.get(status),
    }
    return {"error": error}


def _type(status: int) -> str:
    if status >= 500:
        return "server_error"
    return {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")

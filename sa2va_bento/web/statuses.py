"""The one table of HTTP statuses: what each means here, and what OpenAI's clients are told of it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """`phrase` stands for an error that comes without words, `meaning` is for the documentation; `openai_type` and
    `openai_code` are for programs that speak OpenAI's API. `retry_after_s` is what a client is told to wait."""

    phrase: str
    meaning: str
    openai_type: str = "invalid_request_error"
    openai_code: str | None = None
    retry_after_s: int | None = None


STATUSES: Mapping[int, Status] = {
    400: Status("bad request", "A missing or malformed field, an undecodable picture, an empty prompt"),
    401: Status("a key is needed", "No key, or a wrong one", "authentication_error", "invalid_api_key"),
    404: Status("there is no such endpoint", "No such thing", openai_code="not_found"),
    405: Status("this endpoint does not take that method", "Another method is needed"),
    409: Status("not finished yet", "The job has no result yet"),
    413: Status(
        "the body is too large", "A body, a picture or a prompt over its limit", openai_code="request_too_large"
    ),
    415: Status(
        "this media type is not supported",
        "A media type, a picture format or a content encoding that is not supported",
    ),
    429: Status("too many requests", "The caller has asked too often", "rate_limit_error", "rate_limit_exceeded", 1),
    499: Status("the client went away", "The client did not wait for its answer"),
    500: Status("internal error", "The model failed on this request", "server_error", "internal_error"),
    503: Status(
        "the service is not ready",
        "The model is not ready, or too many requests wait",
        "server_error",
        "service_unavailable",
        1,
    ),
    507: Status("there is no room on the disk", "No room for another job", "server_error", "no_room"),
    504: Status("no answer within the request's deadline", "No answer within the deadline", "server_error", "timeout"),
}


def status_of(number: int) -> Status:
    """A status of the table, or what its first digit says of one that is not in it."""
    kind = "server_error" if number >= 500 else "invalid_request_error"
    return STATUSES.get(number) or Status("the request failed", "Something else", kind)

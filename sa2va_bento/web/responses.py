"""The one place where errors become responses: one JSON object with a string `error`, or OpenAI's under `/v1`."""

import json
import logging
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from sa2va_bento.errors import InferenceError, Sa2VAError
from sa2va_bento.web.openai_errors import openai_error, speaks_openai

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]

PHRASES = {
    400: "bad request",
    401: "a key is needed",
    404: "there is no such endpoint",
    405: "this endpoint does not take that method",
    413: "the body is too large",
    415: "this media type is not supported",
    429: "too many requests",
    500: "internal error",
    503: "the service is not ready",
    504: "no answer within the request's deadline",
}
RETRY_AFTER_S = 1


def request_id_of(scope: Scope) -> str:
    """The id that `RequestContext` gave the request."""
    return scope.get("state", {}).get("request_id", "")


def error_response(error: Exception, scope: Scope) -> JSONResponse:
    """Maps an exception: ours to its status and message, any other to a bare 500 (its traceback is logged)."""
    known = known_error(error, scope)
    headers = {} if known.retry_after_s is None else {"Retry-After": str(known.retry_after_s)}
    if known.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="sa2va"'
    return JSONResponse(error_body(known, scope), known.status, headers)


def error_body(error: Sa2VAError, scope: Scope) -> dict[str, object]:
    """What a client is told of an error, in the shape of the route that it asked."""
    if speaks_openai(scope):
        return openai_error(error.status, error.message, error.code)
    return {"error": error.message, "request_id": request_id_of(scope)}


def known_error(error: Exception, scope: Scope) -> Sa2VAError:
    """One of our errors as it is; a bare internal error in place of any other, which is logged with its traceback."""
    if isinstance(error, Sa2VAError):
        return error
    logger.error("request %s failed", request_id_of(scope), exc_info=error)
    return InferenceError(PHRASES[500])


def guarded(handler: Handler) -> Handler:
    """A handler that answers every exception by `error_response`."""

    async def guard(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:
            return error_response(error, request.scope)

    return guard


def contract_error(status: int, body: bytes, scope: Scope) -> bytes:
    """An error body as the contract wants it, from whatever a layer below wrote.

    A body in the right shape keeps all it has; anything else is replaced by a phrase for the status.
    """
    answer = _json_object(body)
    if speaks_openai(scope):
        return body if isinstance(answer.get("error"), dict) else _dumped(openai_error(status, _phrase(status)))
    if not isinstance(answer.get("error"), str):
        answer = {"error": _phrase(status)}
    return _dumped({**answer, "request_id": request_id_of(scope)})


def _phrase(status: int) -> str:
    return PHRASES.get(status, "the request failed")


def _dumped(answer: dict[str, object]) -> bytes:
    return json.dumps(answer, ensure_ascii=False).encode()


def _json_object(body: bytes) -> dict[str, object]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}

"""The one place where errors become responses: one JSON object with a string `error`, or OpenAI's under `/v1`."""

import json
import logging
from collections.abc import Awaitable, Callable
from typing import cast

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from sa2va_bento import metrics
from sa2va_bento.errors import InferenceError, RequestCancelledError, Sa2VAError
from sa2va_bento.types import RequestContext
from sa2va_bento.web.openai.errors import openai_error, speaks_openai
from sa2va_bento.web.statuses import STATUSES, status_of

logger = logging.getLogger(__name__)


def context_of(scope: Scope) -> RequestContext:
    """What the outermost layer noted when the request arrived."""
    return scope.get("state", {}).get("context") or RequestContext()


def request_id_of(scope: Scope) -> str:
    """The id that the request was given on arrival."""
    return context_of(scope).request_id


def error_response(error: Exception, scope: Scope) -> JSONResponse:
    """Maps an exception: ours to its status and message, any other to a bare 500 (its traceback is logged)."""
    known = known_error(error, scope)
    headers = {} if known.retry_after_s is None else {"Retry-After": str(known.retry_after_s)}
    if known.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="sa2va"'
    return JSONResponse(error_body(known, scope), _status(known, scope), headers)


def error_body(error: Sa2VAError, scope: Scope) -> dict[str, object]:
    """What a client is told of an error, in the shape of the route that it asked."""
    if speaks_openai(scope):
        return openai_error(_status(error, scope), error.message, error.code)
    return {"error": error.message, "request_id": request_id_of(scope)}


def _status(error: Sa2VAError, scope: Scope) -> int:
    return error.openai_status or error.status if speaks_openai(scope) else error.status


def known_error(error: Exception, scope: Scope) -> Sa2VAError:
    """One of our errors as it is; a bare internal error in place of any other, which is logged with its traceback.
    Every request that fails passes here once, and is counted."""
    if isinstance(error, ClientDisconnect):
        error = RequestCancelledError("the client went away")
    if not isinstance(error, Sa2VAError):
        logger.error("request %s failed", request_id_of(scope), exc_info=error)
        error = InferenceError(STATUSES[500].phrase)
    metrics.count_error(error.status, error.reason)
    return error


def answering_errors(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """A handler that answers every exception by `error_response`: for BentoML's own endpoints, which would answer them
    in BentoML's shapes. What our routes raise reaches the error layer around all of them."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:
            return error_response(error, request.scope)

    return answer


def contract_error(status: int, body: bytes, scope: Scope) -> bytes:
    """An error body as the contract wants it, from whatever a layer below wrote.

    A body in the right shape keeps all it has; anything else is replaced by a phrase for the status.
    """
    answer, phrase = _json_object(body), status_of(status).phrase
    if speaks_openai(scope):
        return body if isinstance(answer.get("error"), dict) else _dumped(openai_error(status, phrase))
    if not isinstance(answer.get("error"), str):
        answer = {"error": phrase}
    return _dumped({**answer, "request_id": request_id_of(scope)})


def _dumped(answer: dict[str, object]) -> bytes:
    return json.dumps(answer, ensure_ascii=False).encode()


def _json_object(body: bytes) -> dict[str, object]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return cast("dict[str, object]", answer) if isinstance(answer, dict) else {}

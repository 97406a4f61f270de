"""The gate: what can't be served now is refused before any layer of the application has seen it, at next to no cost.

Under ten times the load that the model can take, nine of ten requests end here; each of them through BentoML's layers
would take the time that the answers need.
"""

from collections.abc import Callable, Iterator
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from sa2va_bento.errors import Sa2VAError
from sa2va_bento.settings import Settings
from sa2va_bento.web.endpoints import ENDPOINTS
from sa2va_bento.web.errors import error_response
from sa2va_bento.web.runtime import Runtime

GUARDED = frozenset(endpoint.path for endpoint in ENDPOINTS if endpoint.method == "POST" and endpoint.takes)
"""The paths that ask the model."""

Layers = Iterator[tuple[type, dict[str, Any]]]


class Gate:
    """Tells for a request whether it is refused at once, and by which application."""

    def __init__(self, runtime: Runtime, layers: Callable[[Settings], Layers]) -> None:
        self._runtime = runtime
        self._refuser: ASGIApp = self._refuse
        for layer, options in reversed(list(layers(runtime.settings))):
            self._refuser = layer(self._refuser, **options)

    def __call__(self, scope: Scope) -> ASGIApp | None:
        if scope["method"] != "POST" or scope["path"].rstrip("/") not in GUARDED:
            return None
        if refusal := self._refusal():
            scope["state"]["refusal"] = refusal
            return self._refuser
        return None

    def _refusal(self) -> Sa2VAError | None:
        try:
            self._runtime.model.check_room(self._runtime.settings.timeout_s)
        except Sa2VAError as error:
            return error
        return None

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await error_response(scope["state"]["refusal"], scope)(scope, receive, send)

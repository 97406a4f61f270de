"""Two classes of requests: those that may wait give way to the others in the engine. Off unless the operator names keys
whose requests may wait, or believes what requests say of themselves."""

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sa2va_bento.web.access import KeyRing, given_keys
from sa2va_bento.web.errors import context_of

PRIORITY = "X-Priority"
LOW = "low"
"""The header's value of a request that may wait; any other is a usual one."""


class Priority:
    """Notes in a request's context whether it may wait."""

    def __init__(self, app: ASGIApp, keys: Iterable[str], believes_header: bool) -> None:
        self.app, self._keys, self._believes_header = app, KeyRing(keys), believes_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            context_of(scope).may_wait = self._may_wait(Headers(scope=scope))
        await self.app(scope, receive, send)

    def _may_wait(self, headers: Headers) -> bool:
        says_so = self._believes_header and headers.get(PRIORITY, "").strip().lower() == LOW
        return says_so or any(self._keys.find(key) is not None for key in given_keys(headers))

"""Who may ask, and how often: keys that the operator hands out, and a limit on the requests of each."""

import hashlib
import hmac
import math
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sa2va_bento.errors import RateLimitedError, UnauthorizedError
from sa2va_bento.web.errors import error_response
from sa2va_bento.web.rate_limit import TokenBuckets


class KeyRing:
    """The keys in force, kept as digests."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def find(self, key: bytes) -> int | None:
        """The key's place in the ring; the time it takes does not depend on which one matches, or how nearly."""
        digest = hashlib.sha256(key).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return matches.index(True) if any(matches) else None


class Access:
    """Answers 401 to requests without a key where keys are set, and 429 to callers over their rate."""

    def __init__(self, app: ASGIApp, keys: Iterable[str], per_minute: int | None, open_paths: frozenset[str]) -> None:
        self.app, self._open_paths = app, open_paths
        self._keys = KeyRing(keys)
        self._rate = TokenBuckets(per_minute) if per_minute else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope):
            return await self.app(scope, receive, send)
        try:
            self._admit(scope)
        except (UnauthorizedError, RateLimitedError) as error:
            return await error_response(error, scope)(scope, receive, send)
        await self.app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        """What `GET` answers to anybody: probes, and what this is."""
        return scope["method"] in ("GET", "HEAD") and scope["path"] in self._open_paths

    def _admit(self, scope: Scope) -> None:
        caller = self._caller(scope)
        if self._rate is not None and (wait_s := self._rate.take(caller)):
            raise RateLimitedError("too many requests; try again later", math.ceil(wait_s))

    def _caller(self, scope: Scope) -> str:
        """Whose rate a request counts for: its key's or, where no keys are set, its address's."""
        if not self._keys:
            client = scope.get("client")
            return f"address {client[0]}" if client else "unknown"
        found = [self._keys.find(key) for key in _given_keys(Headers(scope=scope))]
        known = [place for place in found if place is not None]
        if not known:
            raise UnauthorizedError("a wrong key" if found else "a key is needed: Authorization: Bearer or X-API-Key")
        return f"key {known[0]}"


def _given_keys(headers: Headers) -> list[bytes]:
    """Every key that the headers carry, as its bytes came."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    given = [token if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
    return [key.strip().encode("latin-1") for key in given if key.strip()]

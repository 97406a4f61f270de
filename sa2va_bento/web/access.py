"""Who may ask, and how often: keys that the operator hands out, and a limit on the requests of each."""

import hashlib
import hmac
import math
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sa2va_bento.errors import RateLimitedError, UnauthorizedError
from sa2va_bento.web.errors import error_response
from sa2va_bento.web.rate_limit import TokenBuckets

Network = IPv4Network | IPv6Network

MOST_WRONG_KEYS = 30
"""A minute, of an address."""
OWNER = "owner"
"""Name in a request's state of whose key it came with; where no keys are set nothing is anybody's."""
PEER = "peer"
"""Name in a request's state of the other end of its connection, whatever its headers say."""


class KeyRing:
    """The keys in force, kept as digests."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def name_of(self, place: int) -> str:
        """A name for the key at a place, which does not give it away and stays when others come and go."""
        return self._digests[place].hex()[:32]

    def find(self, key: bytes) -> int | None:
        """The key's place in the ring; the time it takes does not depend on which one matches, or how nearly."""
        digest = hashlib.sha256(key).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return matches.index(True) if any(matches) else None


class Access:
    """Answers 401 to requests without a key where keys are set, and 429 to callers over their rate. Wrong keys are
    limited, too, by address: nobody guesses at leisure."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Iterable[str],
        per_minute: int | None,
        is_open: Callable[[Scope], bool],
        proxies: Sequence[Network] = (),
    ) -> None:
        self.app, self._is_open, self._proxies = app, is_open, tuple(proxies)
        self._keys = KeyRing(keys)
        self._rate = TokenBuckets(per_minute) if per_minute else None
        self._wrong_keys = TokenBuckets(MOST_WRONG_KEYS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope):
            return await self.app(scope, receive, send)
        try:
            self._admit(scope)
        except (UnauthorizedError, RateLimitedError) as error:
            return await error_response(error, scope)(scope, receive, send)
        await self.app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        caller = self._caller(scope)
        if self._rate is not None and (wait_s := self._rate.take(caller)):
            raise RateLimitedError("too many requests; try again later", math.ceil(wait_s))

    def _caller(self, scope: Scope) -> str:
        """Whose rate a request counts for: its key's or, where no keys are set, its address's."""
        if not self._keys:
            return f"address {client_address(scope, self._proxies)}"
        found = [self._keys.find(key) for key in given_keys(Headers(scope=scope))]
        known = [place for place in found if place is not None]
        if known:
            scope.setdefault("state", {})[OWNER] = self._keys.name_of(known[0])
            return f"key {known[0]}"
        if wait_s := self._wrong_keys.take(client_address(scope, self._proxies)):
            raise RateLimitedError("too many wrong keys; try again later", math.ceil(wait_s))
        raise UnauthorizedError("a wrong key" if found else "a key is needed: Authorization: Bearer or X-API-Key")


def client_address(scope: Scope, proxies: Sequence[Network]) -> str:
    """Where a request comes from: its peer or, where that is one of the operator's proxies, the last address in
    `X-Forwarded-For` that is none. What others write into that header is not believed."""
    peer = str(scope.get("state", {}).get(PEER) or (scope.get("client") or ("unknown",))[0])
    forwarded = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",") if proxies else []
    while forwarded and _is_one_of(peer, proxies):
        peer = forwarded.pop().strip()
    return peer


def _is_one_of(address: str, networks: Sequence[Network]) -> bool:
    try:
        return any(ip_address(address) in network for network in networks)
    except ValueError:
        return False


def given_keys(headers: Headers) -> list[bytes]:
    """Every key that the headers carry, as its bytes came."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    given = [token if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
    return [key.strip().encode("latin-1") for key in given if key.strip()]

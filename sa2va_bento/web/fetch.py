"""Pictures by URL, from hosts that the operator lists and from nowhere else: protection against SSRF.

A URL in a request makes the service a caller inside the operator's network (server-side request forgery). So: http and
https only, hosts by exact match, addresses looked up once, checked and then connected to as checked, every redirect
judged like the first URL, and limits on size, time and redirects. No proxy is used, and no cookie is kept.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import cast
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore

from sa2va_bento import __version__
from sa2va_bento.errors import BadRequestError, PayloadTooLargeError
from sa2va_bento.settings import Settings

NOT_FETCHED = "is not fetched: this service takes pictures as data only (SA2VA_IMAGE_URL_HOSTS is not set)"
"""What follows "the URL" where no host is allowed."""
MOST_REDIRECTS = 3
_MOST_CHARACTERS = 8192
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {"User-Agent": f"sa2va-bento/{__version__}", "Accept": "image/*", "Accept-Encoding": "identity"}

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All IPv6 addresses that IANA gives to networks. Without are fec0::/10 (site-local), and ::/96, ::ffff:0:0:0/96,
64:ff9b::/96 and 64:ff9b:1::/48, whose addresses stand for IPv4 ones, private ones among them."""

_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("192.88.99.0/24", "2002::/16", "3fff::/20")))
"""What Python calls global all the same: 6to4, whose relays and addresses lead to IPv4 ones, and documentation."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class FetchPolicy:
    """What may be fetched: `hosts` as (name, port or None for the scheme's own), at most `max_bytes` in `timeout_s`."""

    hosts: frozenset[tuple[str, int | None]]
    max_bytes: int
    timeout_s: float
    private: bool = False
    """Whether addresses that are not public may be connected to."""

    @classmethod
    def of(cls, settings: Settings) -> "FetchPolicy":
        hosts = (urlsplit(f"//{host}") for host in settings.url_hosts)
        named = frozenset((host.hostname or "", host.port) for host in hosts)
        return cls(named, settings.max_body_bytes, settings.image_url_timeout_s, settings.image_url_private)


def is_url(text: str) -> bool:
    """Whether a picture's text is a URL rather than the picture itself."""
    return text.lstrip()[:8].lower().startswith(("http://", "https://"))


async def fetch(url: str, policy: FetchPolicy, field: str = "base64Image") -> bytes:
    """The bytes behind a URL, whatever they are.

    Args:
        url: What the client sent.
        policy: What the operator allows.
        field: The URL's place in the request, for messages.

    Raises:
        BadRequestError: the URL is not one to be fetched, or it can't be.
        PayloadTooLargeError: there are more bytes than the policy's limit.
    """
    try:
        async with asyncio.timeout(policy.timeout_s):
            return await _follow(url.strip(), policy)
    except TimeoutError:
        raise BadRequestError(f"{field}: the URL was not answered within {policy.timeout_s:g} s") from None
    except _RefusedError as refusal:
        raise BadRequestError(f"{field}: the URL {refusal}") from None
    except _TooLargeError:
        raise PayloadTooLargeError(f"{field}: over the limit of {policy.max_bytes / 2**20:g} MiB") from None


class _RefusedError(Exception):
    """Why a URL is not fetched, in words that follow "the URL"."""


class _TooLargeError(Exception):
    """More bytes than are allowed."""


async def _follow(url: str, policy: FetchPolicy) -> bytes:
    for _ in range(MOST_REDIRECTS + 1):
        found = await _get(_checked(url, policy), policy)
        if isinstance(found, bytes):
            return found
        url = _joined(url, found)
    raise _RefusedError(f"is redirected more than {MOST_REDIRECTS} times")


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise _RefusedError("is redirected to one that is not valid") from None


def _checked(url: str, policy: FetchPolicy) -> SplitResult:
    """The parts of a URL that may be fetched as far as it itself can tell."""
    if not policy.hosts:
        raise _RefusedError(NOT_FETCHED)
    if len(url) > _MOST_CHARACTERS or not re.fullmatch(r"[\x21-\x7e]+", url) or "\\" in url:
        raise _RefusedError("is not valid")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _RefusedError("is not valid") from None
    if parts.scheme not in _PORTS:
        raise _RefusedError("must begin with http:// or https://")
    if "@" in parts.netloc:
        raise _RefusedError("must not hold a user or a password")
    own = _PORTS[parts.scheme]
    if (host, port or own) not in policy.hosts and not ((host, None) in policy.hosts and port in (None, own)):
        raise _RefusedError("names a host that this service does not fetch from")
    return parts


async def _get(parts: SplitResult, policy: FetchPolicy) -> bytes | str:
    """The body behind a URL, or where it redirects to."""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    url = httpcore.URL(scheme=parts.scheme, host=parts.hostname or "", port=parts.port, target=target)
    tls = _tls() if parts.scheme == "https" else None
    try:
        async with (
            httpcore.AsyncConnectionPool(ssl_context=tls, network_backend=_CheckedNetwork(policy)) as pool,
            pool.stream("GET", url, headers={"Host": parts.netloc, **_HEADERS}) as answer,
        ):
            return await _read(answer, policy)
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError, UnicodeError):
        raise _RefusedError("can't be fetched") from None


@cache
def _tls() -> ssl.SSLContext:
    """Verifies host names and certificates. Made once: reading the system's authorities takes tens of milliseconds."""
    return ssl.create_default_context()


async def _read(answer: httpcore.Response, policy: FetchPolicy) -> bytes | str:
    headers = {name.lower(): value.decode("latin-1") for name, value in answer.headers}
    if answer.status in _REDIRECTS and (location := headers.get(b"location")):
        return location
    if answer.status != 200:
        raise _RefusedError(f"answers {answer.status}")
    if headers.get(b"content-encoding", "identity").lower() != "identity":
        raise _RefusedError("answers with a compressed body")
    if int(headers.get(b"content-length", 0)) > policy.max_bytes:
        raise _TooLargeError
    return await _body(answer, policy)


async def _body(answer: httpcore.Response, policy: FetchPolicy) -> bytes:
    data = bytearray()
    try:
        async for piece in answer.aiter_stream():
            data += piece
            if len(data) > policy.max_bytes:
                raise _TooLargeError
    except (httpcore.NetworkError, httpcore.ProtocolError):
        raise _RefusedError("breaks off") from None
    return bytes(data)


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were checked, and to those only."""

    def __init__(self, policy: FetchPolicy) -> None:
        self._policy = policy
        self._network = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first of a host's addresses that answers."""
        failure: Exception = httpcore.ConnectError("no address")
        for address in await _addresses(host, port, self._policy):
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


async def _addresses(host: str, port: int, policy: FetchPolicy) -> list[str]:
    """Addresses of a host, looked up once. One that is not public condemns them all."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not policy.private and not all(_is_public(ipaddress.ip_address(address)) for address in addresses):
        raise _RefusedError("leads to an address that is not public")
    return addresses


def _is_public(address: Address) -> bool:
    plain = getattr(address, "ipv4_mapped", None) or address
    if isinstance(plain, ipaddress.IPv6Address) and plain not in _GLOBAL_UNICAST:
        return False
    return plain.is_global and not plain.is_multicast and not any(plain in network for network in _NOT_PUBLIC)

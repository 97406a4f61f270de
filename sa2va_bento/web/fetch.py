"""Pictures by URL, from hosts that the operator lists and from nowhere else.

A URL in a request makes the service a caller inside the operator's network. So: http and https only, hosts by exact
match, addresses looked up once, checked and then connected to as checked, every redirect judged like the first URL,
and limits on size, time and redirects. No proxy is used. It blocks: not for the event loop.
"""

import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from sa2va_bento import __version__
from sa2va_bento.errors import BadRequestError, PayloadTooLargeError
from sa2va_bento.settings import Settings

MOST_REDIRECTS = 3
_MOST_CHARACTERS = 8192
_CHUNK = 64 * 1024
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {"User-Agent": f"sa2va-bento/{__version__}", "Accept": "image/*", "Accept-Encoding": "identity"}

_TRANSLATED = tuple(map(ipaddress.ip_network, ("2002::/16", "64:ff9b::/96", "64:ff9b:1::/48")))
"""Networks whose IPv6 addresses stand for IPv4 ones, private ones among them."""

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


def fetch(url: str, policy: FetchPolicy, field: str = "base64Image") -> bytes:
    """The bytes behind a URL, whatever they are.

    Args:
        url: What the client sent.
        policy: What the operator allows.
        field: The URL's place in the request, for messages.

    Raises:
        BadRequestError: the URL is not one to be fetched, or it can't be.
        PayloadTooLargeError: there are more bytes than the policy's limit.
    """
    deadline, target = time.monotonic() + policy.timeout_s, url.strip()
    try:
        for _ in range(MOST_REDIRECTS + 1):
            parts = _checked(target, policy)
            found = _get(parts, policy, deadline)
            if isinstance(found, bytes):
                return found
            target = urljoin(target, found)
        raise _RefusedError(f"is redirected more than {MOST_REDIRECTS} times")
    except _RefusedError as refusal:
        raise BadRequestError(f"{field}: the URL {refusal}") from None
    except _TooLargeError:
        raise PayloadTooLargeError(f"{field}: over the limit of {policy.max_bytes / 2**20:g} MiB") from None


class _RefusedError(Exception):
    """Why a URL is not fetched, in words that follow "the URL"."""


class _TooLargeError(Exception):
    """More bytes than are allowed."""


def _checked(url: str, policy: FetchPolicy) -> SplitResult:
    """The parts of a URL that may be fetched as far as it itself can tell."""
    if not policy.hosts:
        raise _RefusedError(
            "is not fetched: this service takes pictures as data only (SA2VA_IMAGE_URL_HOSTS is not set)"
        )
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


def _get(parts: SplitResult, policy: FetchPolicy, deadline: float) -> bytes | str:
    """The body behind a URL, or where it redirects to."""
    try:
        with _connected(parts, policy, deadline) as connection:
            connection.request(
                "GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), headers=_HEADERS
            )
            answer = connection.getresponse()
            if answer.status in _REDIRECTS and (location := answer.getheader("Location")):
                return location
            if answer.status != 200:
                raise _RefusedError(f"answers {answer.status}")
            return _read(answer, policy, deadline)
    except (OSError, http.client.HTTPException, UnicodeError):
        late = time.monotonic() >= deadline
        raise _RefusedError(f"was not answered within {policy.timeout_s:g} s" if late else "can't be fetched") from None


def _read(answer: http.client.HTTPResponse, policy: FetchPolicy, deadline: float) -> bytes:
    if answer.getheader("Content-Encoding", "identity").lower() != "identity":
        raise _RefusedError("answers with a compressed body")
    if (answer.length or 0) > policy.max_bytes:
        raise _TooLargeError
    data = bytearray()
    while chunk := answer.read(_CHUNK):
        data += chunk
        if len(data) > policy.max_bytes:
            raise _TooLargeError
    if time.monotonic() >= deadline:  # the connection was cut, which looks like its end
        raise TimeoutError
    if answer.length:  # announced and not sent
        raise _RefusedError("breaks off")
    return bytes(data)


@contextlib.contextmanager
def _connected(parts: SplitResult, policy: FetchPolicy, deadline: float) -> Iterator[http.client.HTTPConnection]:
    """A connection to an address of the host that was checked; it is cut at the deadline, whatever it is doing."""
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    connection = http.client.HTTPConnection(host, port)
    connection.sock = connected = _open(_addresses(host, port, policy), port, deadline)
    if parts.scheme == "https":
        connection.sock = connected = ssl.create_default_context().wrap_socket(
            connected, server_hostname=host, do_handshake_on_connect=False
        )
    cut = threading.Timer(max(0.0, deadline - time.monotonic()), _cut, [connected])
    cut.daemon = True
    cut.start()
    try:
        if isinstance(connected, ssl.SSLSocket):
            connected.do_handshake()
        yield connection
    finally:
        cut.cancel()
        connection.close()
        connected.close()


def _addresses(host: str, port: int, policy: FetchPolicy) -> list[str]:
    """Addresses of a host, looked up once. One that is not public condemns them all."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not policy.private and not all(_is_public(ipaddress.ip_address(address)) for address in addresses):
        raise _RefusedError("leads to an address that is not public")
    return addresses


def _is_public(address: Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_global and not mapped.is_multicast and not any(mapped in network for network in _TRANSLATED)


def _open(addresses: list[str], port: int, deadline: float) -> socket.socket:
    """A socket to the first address that answers."""
    failure = OSError("no address")
    for address in addresses:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        try:
            connected = socket.create_connection((address, port), timeout=left_s)
            connected.settimeout(left_s)
            return connected
        except OSError as error:
            failure = error
    raise failure


def _cut(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)

"""A host of pictures, good ones and bad ones, on a free port of this machine; and what fetching from it gives."""

import asyncio
import http.server
import ssl
import threading
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from sa2va_bento.errors import BadRequestError
from sa2va_bento.settings import Settings
from sa2va_bento.web import fetch as module
from sa2va_bento.web.fetch import FetchPolicy
from tests.pictures import encode, quarters

PNG = encode(quarters())
LIMIT = 100_000
"""Most bytes of a picture under `policy`."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path."""

    protocol_version = "HTTP/1.1"
    requests: list[tuple[str, dict[str, str]]] = []  # noqa: RUF012 - of all handlers, for the tests to read

    def do_GET(self) -> None:
        self.requests.append((self.path, dict(self.headers)))
        parts = urlsplit(self.path)
        getattr(self, f"get_{parts.path[1:] or 'a'}")(parse_qs(parts.query))

    def get_a(self, _: object) -> None:
        self._answer(200, PNG)

    def get_redirect(self, query: dict[str, list[str]]) -> None:
        self._answer(int(query.get("status", ["302"])[0]), b"elsewhere", Location=query["to"][0])

    def get_missing(self, _: object) -> None:
        self._answer(404, b"not here")

    def get_huge(self, _: object) -> None:
        self._answer(200, b"", **{"Content-Length": str(10**12)})

    def get_endless(self, _: object) -> None:
        self._answer(200, b"", **{"Content-Length": "", "Transfer-Encoding": "chunked"})
        try:
            while True:
                self.wfile.write(b"1000\r\n" + bytes(4096) + b"\r\n")
        except OSError:
            self.close_connection = True

    def get_broken(self, _: object) -> None:
        self._answer(200, PNG, **{"Content-Length": str(len(PNG) + 5)})
        self.close_connection = True

    def get_brokenchunks(self, _: object) -> None:
        self._answer(200, b"5\r\nabcde\r\n5\r\nab", **{"Content-Length": "", "Transfer-Encoding": "chunked"})
        self.close_connection = True

    def get_negativechunk(self, _: object) -> None:
        self._answer(200, b"-5\r\n" + bytes(10 * LIMIT), **{"Content-Length": "", "Transfer-Encoding": "chunked"})
        self.close_connection = True

    def get_hugechunk(self, _: object) -> None:
        body = b"f" * 16 + b"\r\n" + bytes(10 * LIMIT)
        self._answer(200, body, **{"Content-Length": "", "Transfer-Encoding": "chunked"})
        self.close_connection = True

    def get_negative(self, _: object) -> None:
        self._answer(200, PNG, **{"Content-Length": "-5"})
        self.close_connection = True

    def get_more(self, _: object) -> None:
        self._answer(200, PNG + b"more than was announced", **{"Content-Length": str(len(PNG))})
        self.close_connection = True

    def get_cookie(self, query: dict[str, list[str]]) -> None:
        self._answer(302, b"", **{"Set-Cookie": "a=b", "Location": query["to"][0]})

    def get_compressed(self, _: object) -> None:
        self._answer(200, PNG, **{"Content-Encoding": "gzip"})

    def get_drip(self, _: object) -> None:
        self._answer(200, b"", **{"Content-Length": "1000"})
        self._drip(b"x", 100)

    def get_drippingheaders(self, _: object) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        self._drip(b"x", 100)

    def _drip(self, data: bytes, times: int) -> None:
        self.close_connection = True
        try:
            for _ in range(times):
                self.wfile.write(data)
                time.sleep(0.05)
        except OSError:
            pass

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Says nothing."""


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of clients that hang up, as they should here."""


class PictureHost:
    """A server with `Handler` on a free port, with TLS if given a context."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> int:
        self._thread.start()
        return self._server.server_address[1]

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def policy(*hosts: str, private: bool = True, timeout_s: float = 5) -> FetchPolicy:
    """What may be fetched from these hosts."""
    settings = Settings(image_url_hosts=",".join(hosts), image_url_private=private, image_url_timeout_s=timeout_s)
    return FetchPolicy(FetchPolicy.of(settings).hosts, LIMIT, timeout_s, private)


def fetch(url: str, allowed: FetchPolicy) -> bytes:
    """The bytes behind a URL, fetched on an event loop of its own."""
    return asyncio.run(module.fetch(url, allowed))


def refused(url: str, allowed: FetchPolicy) -> str:
    """Why a URL is not fetched."""
    with pytest.raises(BadRequestError) as caught:
        fetch(url, allowed)
    assert caught.value.message.startswith("base64Image: the URL ")
    return caught.value.message

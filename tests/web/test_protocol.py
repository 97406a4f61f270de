"""What a connection may do to the service: slowly, without end, half-closed, or not reading."""

import contextlib
import errno
import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from sa2va_bento.web import protocol
from tests.checks import GOOD, eventually
from tests.fakes import FakePredictor
from tests.serving import server_of

BODY = json.dumps(GOOD).encode()
HEAD = b"POST /process HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture(scope="module")
def model() -> FakePredictor:
    return FakePredictor()


@pytest.fixture(scope="module")
def url(model: FakePredictor) -> Iterator[str]:
    with server_of(model, SA2VA_HEAD_TIMEOUT_S="0.5", SA2VA_WRITE_TIMEOUT_S="0.5", SA2VA_MAX_BODY_MB="2") as url:
        yield url


@contextlib.contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """Until the server closes."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            data += piece
    return data


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("sent", [b"", b"POST /process HT", HEAD], ids=["nothing", "a line", "a head without end"])
def test_a_head_must_come_in_time(url: str, sent: bytes) -> None:
    with connected(url) as connection:
        connection.sendall(sent)
        answer = read_all(connection)
    assert status_of(answer) == 408
    assert b'{"error":' in answer


@pytest.mark.parametrize(
    "header", [b"X: " + b"a" * 200_000, b"".join(b"X-%d: a\r\n" % n for n in range(20_000))], ids=["one", "many"]
)
def test_a_head_has_a_bounded_size(url: str, header: bytes) -> None:
    with connected(url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n\r\n")
        assert status_of(read_all(connection)) == 431


@pytest.mark.parametrize("length", [b"1" * 5001, b"-1", b"1_0", b"0x10", b"1, 2"])
def test_a_content_length_that_is_none(url: str, length: bytes) -> None:
    with connected(url) as connection:
        connection.sendall(HEAD + b"Content-Length: " + length + b"\r\n\r\n")
        assert status_of(read_all(connection)) == 400


def test_a_body_must_keep_coming(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "GRACE_S", 0.2)
    monkeypatch.setattr(protocol, "TICK_S", 0.05)
    with connected(url) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        assert status_of(read_all(connection)) == 408


def test_a_reader_that_stalls_is_cut_off() -> None:
    long = json.dumps({**GOOD, "prompt": "x" * 24_000_000}).encode()  # more than the buffers on the way hold
    environment = {"SA2VA_WRITE_TIMEOUT_S": "0.3", "SA2VA_MAX_PROMPT_TOKENS": "4000000"}
    with server_of(FakePredictor(), **environment) as url:
        with connected(url) as connection:
            connection.sendall(
                HEAD.replace(b"/process", b"/process_stream") + b"Content-Length: %d\r\n\r\n" % len(long)
            )
            connection.sendall(long)
            assert connection.recv(12) == b"HTTP/1.1 200"
            deadline = time.monotonic() + 60
            while not _is_reset(connection):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert httpx.post(f"{url}/process", json=GOOD).status_code == 200


def _is_reset(connection: socket.socket) -> bool:
    """Whether the server has aborted the connection; asks the system, reads nothing."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET


def test_who_has_sent_all_gets_the_answer(url: str, model: FakePredictor) -> None:
    model.gate.clear()
    with connected(url) as connection:
        connection.sendall(WHOLE)
        connection.shutdown(socket.SHUT_WR)
        eventually(lambda: model.queue_depth == 1)
        model.gate.set()
        answer = read_all(connection)
    while answer.startswith(b"HTTP/1.1 100"):
        answer = answer.partition(b"\r\n\r\n")[2]
    assert status_of(answer) == 200


def test_who_has_gone_frees_the_model(url: str, model: FakePredictor) -> None:
    before = model.cancelled
    model.gate.clear()
    with connected(url) as connection:
        connection.sendall(WHOLE)
        eventually(lambda: model.queue_depth == 1)
    eventually(lambda: model.cancelled == before + 1)
    model.gate.set()


@pytest.mark.parametrize("extra", [b"", b"Connection: close\r\n"], ids=["keep alive", "close"])
def test_a_refusal_can_be_read_by_who_is_still_sending(url: str, extra: bytes) -> None:
    body = bytes(8 * 2**20)
    with connected(url) as connection:
        connection.sendall(HEAD + extra + b"Content-Length: %d\r\n\r\n" % len(body))
        connection.sendall(body)  # all of it, before anything is read
        answer = read_all(connection)
    assert status_of(answer) == 413
    assert b"connection: close" in answer.lower()
    assert b"over the limit of 2 MiB" in answer


def test_connections_have_a_limit_and_an_address_a_share() -> None:
    with server_of(FakePredictor(), SA2VA_MAX_CONNECTIONS="8") as url, contextlib.ExitStack() as stack:
        eventually(lambda: httpx.get(f"{url}/livez").status_code == 200)
        held = [stack.enter_context(connected(url)) for _ in range(4)]
        with connected(url) as one_more:
            answer = read_all(one_more)
        assert status_of(answer) == 503
        assert b"Retry-After" in answer
        held[0].close()
        eventually(lambda: _answers(url))


def _answers(url: str) -> bool:
    return httpx.get(f"{url}/livez").status_code == 200


def test_an_upgrade_that_is_not_spoken_is_answered_as_ever(url: str) -> None:
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA"}
    assert httpx.post(f"{url}/process", json=GOOD, headers=headers).status_code == 200


def test_http_1_0_streams_are_not_chunked(url: str) -> None:
    request = WHOLE.replace(b"/process HTTP/1.1", b"/process_stream HTTP/1.0")
    with connected(url) as connection:
        connection.sendall(request)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body.startswith(b"event: start\n")
    assert b"event: done\n" in body


def test_requests_on_one_connection_follow_each_other(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(WHOLE + WHOLE + WHOLE.replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n"))
        assert read_all(connection).count(b"HTTP/1.1 200") == 3

"""One request, or one client, that could stop a service: each is answered for what it is, and nobody else suffers."""

import contextlib
import gzip
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.hostile.attacks import (
    JSON,
    about,
    ask,
    photograph,
    png_of_chunks,
    progressive_jpeg,
    question_with,
    several,
    statuses,
    tiff_of_strips,
    white,
    zigzag,
)
from tests.hostile.server import STRICT, Server, observed, serving
from tests.pictures import b64, encode

SCALE = 4 if STRICT else 1


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(SA2VA_HEAD_TIMEOUT_S="2", SA2VA_WRITE_TIMEOUT_S="2") as server:
        yield server


PICTURES = {
    "a JPEG of 10,000 scans": lambda: progressive_jpeg(10_000),
    "a JPEG of 200 scans": lambda: progressive_jpeg(200, 7000),
    "a TIFF of 3 million strips": lambda: tiff_of_strips(3_000_000),
    "a PNG of 1 million chunks": lambda: png_of_chunks(1_000_000),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_cost_what_a_picture_may_cost(server: Server, name: str) -> None:
    picture = PICTURES[name]()
    with observed(server):
        begun = time.monotonic()
        answers = several(2, lambda _: ask(server, about(picture)))
        spent = time.monotonic() - begun
    assert all(400 <= status < 500 for status in statuses(answers)) or spent < 20
    assert all(status < 500 for status in statuses(answers))


def test_polygons_are_bounded(server: Server) -> None:
    picture = encode(Image.new("L", (762, 65_535)))
    regions = [{"polygon": zigzag(3000, 762, 65_535)} for _ in range(8)]
    with observed(server):
        answers = several(2, lambda _: ask(server, about(picture, regions=regions)))
    assert all(400 <= status < 500 for status in statuses(answers))


def test_region_masks_are_bounded(server: Server) -> None:
    mask = b64(white(7000))
    with observed(server):
        answer = ask(server, about(white(7000), regions=[{"mask": {"data": mask}}] * 16))
    assert answer.status_code < 500


BODIES = {
    "integers for regions": (question_with(regions=list(range(1_500_000))), "/process"),
    "integers for content": (
        {"messages": [{"role": "user", "content": list(range(1_500_000))}]},
        "/v1/chat/completions",
    ),
    "lists in an unknown field": (b'{"x": [' + b"[]," * 5_000_000 + b"[]]}", "/process"),
    "depth": (b"[" * 1_000_000, "/process"),
    "many fields": (json.dumps({f"f{number}": 0 for number in range(250_000)}).encode(), "/process"),
}


@pytest.mark.parametrize("name", BODIES)
def test_json_is_counted_before_it_is_read(server: Server, name: str) -> None:
    body, path = BODIES[name]
    with observed(server):
        answers = several(2, lambda _: ask(server, body, path))
    assert statuses(answers) == {400}


def test_readers_that_never_read(server: Server) -> None:
    body = json.dumps(about(photograph(3000, 2000), include_overlay=True, prompt="Please segment everything.")).encode()
    head = b"POST /process HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with observed(server), contextlib.ExitStack() as stack:
        for _ in range(6 * SCALE):
            connection = stack.enter_context(server.connected())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head % len(body) + body)
        time.sleep(4)


def test_paths_that_nobody_has(server: Server) -> None:
    with observed(server), httpx.Client(base_url=server.url) as client:
        for number in range(500 * SCALE):
            assert client.get(f"/{number}{'x' * 30_000}").status_code in (404, 431)
    assert len(httpx.get(f"{server.url}/metrics").content) < 200_000


@pytest.mark.parametrize("name", ["one", "many"])
def test_heads_without_end(server: Server, name: str) -> None:
    piece = b"a" * 65_536 if name == "one" else b"X-A: b\r\n" * 8192
    with observed(server), server.connected() as connection, contextlib.suppress(OSError):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        for _ in range(200):
            connection.sendall(piece)


def test_bodies_that_drip(server: Server) -> None:
    head = b"POST /process HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    with observed(server), contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connected()) for _ in range(100 * SCALE)]
        for connection in connections:
            connection.sendall(head)
        for _ in range(6):
            time.sleep(0.5)
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.sendall(b" ")


def test_large_pictures_wait_small(server: Server) -> None:
    picture = white(7000)
    with observed(server):
        answers = several(20, lambda _: ask(server, about(picture)))
    assert statuses(answers) == {200}


def test_gzip_bodies_that_never_end(server: Server) -> None:
    data = gzip.compress(bytes(30 * 2**20))[:-20]
    head = b"POST /process HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
    with observed(server), contextlib.ExitStack() as stack:
        for _ in range(20 * SCALE):
            connection = stack.enter_context(server.connected())
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % (len(data) + 20) + data)
        time.sleep(1)
        assert server.memory < 3 * 2**30


LONE = json.dumps(question_with(history=[{"role": "user", "content": "\ud800"}, {"role": "assistant", "content": "a"}]))


def damaged(mode: str) -> bytes:
    """A question with a region whose mask breaks off."""
    mask = b64(encode(Image.new(mode, (96, 96)))[:-30])
    return json.dumps(question_with(regions=[{"mask": {"data": mask}}])).encode()


ODDITIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "half a character in history": (LONE.encode(), JSON),
    "half a character in the prompt": (json.dumps(question_with(prompt="a\udfff")).encode(), JSON),
    "a form in punycode": (
        b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na\xff\r\n--x--\r\n',
        {"Content-Type": "multipart/form-data; boundary=x; charset=punycode"},
    ),
    "a form without an end": (b"--x\r\n", {"Content-Type": "multipart/form-data; boundary=x"}),
    "a damaged region": (damaged("1"), JSON),
    "a damaged 16-bit region": (damaged("I;16"), JSON),
}


@pytest.mark.parametrize("name", ODDITIES)
def test_oddities_are_bad_requests(server: Server, name: str) -> None:
    body, headers = ODDITIES[name]
    answer = httpx.post(f"{server.url}/process", content=body, headers=headers)
    assert answer.status_code == 400, answer.text


def test_a_content_type_that_is_no_text(server: Server) -> None:
    with server.connected() as connection:
        body = json.dumps(question_with()).encode()
        head = (
            b"POST /process HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json; x=\xff\xfe\r\n"
        )
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"result"' in answer


def test_clients_that_leave_leave_nothing_behind(server: Server) -> None:
    def open_things() -> tuple[int, int, int]:
        return server.worker.num_fds(), server.worker.num_threads(), len(list(server.temporary.iterdir()))

    ask(server, about(white(64)))
    before = open_things()
    bodies: list[Any] = [about(white(64)), about(b"nothing"), about(photograph(600, 400)), {"prompt": 1}]
    with observed(server):
        for number in range(250 * SCALE if STRICT else 50):
            with contextlib.suppress(httpx.TimeoutException):
                httpx.post(f"{server.url}/process", json=bodies[number % 4], timeout=0.02 if number % 2 else 30)
    deadline = time.monotonic() + 15
    while any(now > then + spare for now, then, spare in zip(open_things(), before, (4, 2, 0), strict=True)):
        assert time.monotonic() < deadline, (before, open_things())
        time.sleep(0.2)
    print("descriptors, threads, temporary files:", before, open_things())  # noqa: T201 - with -s

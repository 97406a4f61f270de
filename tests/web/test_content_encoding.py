"""Compressed requests and answers: the same as plain ones, bounded while they are inflated, refused when broken."""

import asyncio
import contextlib
import gzip
import json
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from sa2va_bento.errors import BadRequestError
from sa2va_bento.web import content_encoding as encoding
from sa2va_bento.web.content_encoding import PIECE, Compression, Inflater
from tests.checks import check_error, check_still_works
from tests.fakes import FakePredictor
from tests.pictures import PICTURE, encode, quarters
from tests.serving import server_of

GOOD: dict[str, Any] = {"base64Image": PICTURE, "prompt": "Please segment it."}
TEXT = json.dumps(GOOD).encode()


GZIP = gzip.compress(TEXT, mtime=0)
CODED = {
    "gzip": ("gzip", GZIP),
    "GZIP": ("GZIP", GZIP),
    "x-gzip": ("x-gzip", GZIP),
    "two members": ("gzip", gzip.compress(TEXT[:50]) + gzip.compress(TEXT[50:])),
    "identity": ("identity", TEXT),
}


def post(client: TestClient | httpx.Client, coding: str, body: bytes | Iterator[bytes]) -> Any:
    return client.post(
        "/process", content=body, headers={"Content-Type": "application/json", "Content-Encoding": coding}
    )


@pytest.mark.parametrize(("coding", "body"), CODED.values(), ids=CODED)
def test_a_compressed_request_is_answered_as_a_plain_one(client: TestClient, coding: str, body: bytes) -> None:
    response = post(client, coding, body)
    assert response.status_code == 200
    assert response.json()["segments"] == client.post("/process", json=GOOD).json()["segments"]


@pytest.mark.parametrize(("coding", "body"), CODED.values(), ids=CODED)
def test_it_may_come_byte_by_byte(client: TestClient, coding: str, body: bytes) -> None:
    assert post(client, coding, (body[i : i + 1] for i in range(len(body)))).status_code == 200


def test_a_compressed_form(client: TestClient) -> None:
    request = httpx.Request("POST", "/process", data={"prompt": "hi"}, files={"image": encode(quarters())})
    headers = {"Content-Type": request.headers["content-type"], "Content-Encoding": "gzip"}
    response = client.post("/process", content=gzip.compress(request.read()), headers=headers)
    assert response.json()["result"] == "You asked: hi"


@pytest.mark.parametrize(
    ("coding", "body", "status", "fragment"),
    [
        ("gzip", TEXT, 400, "not valid gzip"),
        ("gzip", b"", 400, "truncated"),
        ("gzip", GZIP[:-4], 400, "truncated"),
        ("gzip", GZIP[: len(GZIP) // 2], 400, "truncated"),
        ("gzip", GZIP[:-5] + b"\0" + GZIP[-4:], 400, "not valid gzip"),
        ("gzip", GZIP + b"more", 400, "not valid gzip"),
        ("gzip", GZIP + GZIP[:9], 400, "truncated"),
        ("gzip", gzip.compress(b"{", mtime=0), 400, "not valid json"),
        ("br", TEXT, 415, "must be gzip"),
        ("deflate", zlib.compress(TEXT), 415, "must be gzip"),
        ("gzip, gzip", gzip.compress(GZIP, mtime=0), 415, "must be gzip"),
        ("zip", TEXT, 415, "must be gzip"),
    ],
)
def test_broken_bodies(client: TestClient, coding: str, body: bytes, status: int, fragment: str) -> None:
    check_error(post(client, coding, body), status, fragment)
    check_still_works(client)


def test_a_bomb_is_refused_early(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    inflated = 0
    take = Inflater.take

    def counted(self: Inflater) -> bytes:
        nonlocal inflated
        piece = take(self)
        inflated += len(piece)
        return piece

    monkeypatch.setattr(Inflater, "take", counted)
    bomb = gzip.compress(bytes(200 * 2**20), 9)
    assert len(bomb) < 2**18
    check_error(post(client, "gzip", bomb), 413, "the inflated body is over the limit of 2 MiB")
    assert 2 * 2**20 < inflated <= 2 * 2**20 + PIECE
    check_still_works(client)


def test_the_limit_holds_for_the_compressed_bytes_too(client: TestClient) -> None:
    check_error(post(client, "gzip", bytes(2 * 2**20 + 1)), 413, "limit of 2 MiB")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 5000), st.integers(1, 400))
def test_pieces_are_bounded_and_add_up(unit: bytes, times: int, step: int) -> None:
    data = unit * times
    body = gzip.compress(data)
    inflater = Inflater()
    pieces = []
    for start in range(0, len(body), step):
        inflater.feed(body[start : start + step])
        while piece := inflater.take():
            pieces.append(piece)
    inflater.check_complete()
    assert b"".join(pieces) == data
    assert max(map(len, pieces), default=0) <= PIECE


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_an_error_of_the_client(noise: bytes) -> None:
    inflater = Inflater()
    inflater.feed(noise)
    with contextlib.suppress(BadRequestError):
        while inflater.take():
            pass
        inflater.check_complete()


@pytest.mark.parametrize(
    ("header", "compressed"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("br;q=1.0, *;q=0.1", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("*;q=0", False),
        ("identity", False),
        ("br, deflate", False),
        ("", False),
    ],
)
def test_answers_are_compressed_where_asked_for(client: TestClient, header: str, compressed: bool) -> None:
    body = {**GOOD, "prompt": "x" * 2000}
    response = client.post("/process", json=body, headers={"Accept-Encoding": header})
    assert response.headers.get("content-encoding") == ("gzip" if compressed else None)
    assert "Accept-Encoding" in response.headers["vary"]
    assert response.json()["result"] == "You asked: " + "x" * 2000
    assert compressed == (int(response.headers["content-length"]) < 1500)


def test_small_answers_and_errors_stay_as_they_are(client: TestClient) -> None:
    small = client.get("/livez", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers
    refused = client.post("/process", content=b"{", headers={"Accept-Encoding": "gzip"})
    check_error(refused, 400, "not valid json")


def test_event_streams_are_not_compressed() -> None:
    sent: list[Any] = []

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"data: x\n\n" * 400, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(b"accept-encoding", b"gzip")]}
    asyncio.run(Compression(stream)(scope, None, send))  # type: ignore[arg-type]
    assert [message.get("body", b"")[:8] for message in sent] == [b"", b"data: x\n", b"data: x\n", b"data: x\n", b""]
    assert (b"content-encoding", b"gzip") not in sent[0]["headers"]


def test_a_stream_of_the_service_is_not_compressed_but_its_request_may_be(client: TestClient) -> None:
    headers = {"Accept-Encoding": "gzip", "Content-Encoding": "gzip", "Content-Type": "application/json"}
    long = gzip.compress(json.dumps({**GOOD, "prompt": "x" * 2000}).encode())
    response = client.post("/process_stream", content=long, headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "content-encoding" not in response.headers
    assert "event: done" in response.text


def test_inflating_leaves_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    pause_s = 0.02
    inflate = encoding.Inflater._inflate

    def slow(self: Inflater) -> bytes:
        time.sleep(pause_s)
        return inflate(self)

    monkeypatch.setattr(encoding.Inflater, "_inflate", slow)
    body = gzip.compress(bytes(20 * 2**20))  # 80 pieces
    with (
        server_of(FakePredictor()) as url,
        ThreadPoolExecutor(1) as pool,
        httpx.Client(base_url=url) as client,
        httpx.Client(base_url=url, timeout=30) as other,
    ):
        large = pool.submit(lambda: post(other, "gzip", body))
        waits_s = []
        while not large.done():
            begun = time.monotonic()
            assert client.get("/livez").status_code == 200
            waits_s.append(time.monotonic() - begun)
        assert large.result().status_code == 400
    assert max(waits_s) < 80 * pause_s / 2


ORIGIN = {"Origin": "http://page.example"}


def test_every_status_names_the_origin(client: TestClient, model: FakePredictor) -> None:
    def status(response: Any) -> int:
        assert response.headers["access-control-allow-origin"] == "*"
        assert "X-Request-ID" in response.headers["access-control-expose-headers"]
        assert response.headers["x-request-id"]
        return response.status_code

    seen = {
        status(client.get("/", headers=ORIGIN)),
        status(client.get("/nothing", headers=ORIGIN)),
        status(client.put("/process", headers=ORIGIN)),
        status(client.post("/process", content=b"{", headers=ORIGIN)),
        status(client.post("/process", content=bytes(3 * 2**20), headers=ORIGIN)),
        status(client.post("/process", content=b"", headers={**ORIGIN, "Content-Type": "text/plain"})),
    }
    model.failure = ValueError()
    seen.add(status(client.post("/process", json=GOOD, headers=ORIGIN)))
    model.failure = None
    model.is_ready = False
    seen.add(status(client.post("/process", json=GOOD, headers=ORIGIN)))
    model.is_ready = True
    assert seen == {200, 404, 405, 400, 413, 415, 500, 503}

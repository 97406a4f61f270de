"""Keys and rates through HTTP: who is let in, who is not and how they are told, and what is never said."""

import asyncio
import logging
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import bentoml
import pytest
from pycocotools import mask as coco
from starlette.testclient import TestClient

from sa2va_bento.errors import StartupError
from sa2va_bento.settings import Settings, load_settings
from sa2va_bento.web import access, rate_limit
from sa2va_bento.web.access import Access, KeyRing, client_address
from sa2va_bento.web.rate_limit import TokenBuckets
from tests.checks import check_error
from tests.fakes import FakePredictor
from tests.pictures import PICTURE
from tests.serving import client_of, server_of

GOOD: dict[str, Any] = {"base64Image": PICTURE, "prompt": "Please segment it."}
KEYS = "first-key-8a41, zweiter-schlüssel,third"


@pytest.fixture(scope="module")
def guarded() -> Iterator[TestClient]:
    with client_of(FakePredictor(), SA2VA_API_KEYS=KEYS) as client:
        yield client


def post(client: TestClient, headers: dict[str, Any] | None = None) -> Any:
    return client.post("/process", json=GOOD, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first-key-8a41"},
        {"Authorization": "bearer  third "},
        {"X-API-Key": "third"},
        {"X-API-Key": "zweiter-schlüssel".encode()},
        {"X-API-Key": "wrong", "Authorization": "Bearer third"},
    ],
)
def test_each_key_opens_by_either_header(guarded: TestClient, headers: dict[str, Any]) -> None:
    assert post(guarded, headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "fragment"),
    [
        ({}, "a key is needed"),
        ({"Authorization": "Bearer"}, "a key is needed"),
        ({"Authorization": "Basic first-key-8a41"}, "a key is needed"),
        ({"Authorization": "first-key-8a41"}, "a key is needed"),
        ({"X-API-Key": ""}, "a key is needed"),
        ({"X-API-Key": "first-key-8a4"}, "a wrong key"),
        ({"X-API-Key": "FIRST-KEY-8A41"}, "a wrong key"),
        ({"X-API-Key": KEYS.encode()}, "a wrong key"),
        ({"X-API-Key": b"\xff\xfe"}, "a wrong key"),
        ({"Authorization": "Bearer third x"}, "a wrong key"),
    ],
)
def test_without_a_key_in_force_nothing_opens(guarded: TestClient, headers: dict[str, Any], fragment: str) -> None:
    response = post(guarded, headers)
    check_error(response, 401, fragment)
    assert response.headers["www-authenticate"] == 'Bearer realm="sa2va"'


@pytest.mark.parametrize("path", ["/", "/health", "/livez", "/readyz", "/healthz"])
def test_probes_stay_open(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/docs.json"),
        ("GET", "/metrics"),
        ("GET", "/nothing"),
        ("GET", "/process"),
        ("POST", "/health"),
        ("POST", "/livez"),
        ("GET", "/livez/../docs.json"),
    ],
)
def test_all_else_is_closed(guarded: TestClient, method: str, path: str) -> None:
    check_error(guarded.request(method, path, headers={"X-API-Key": "no"}), 401, "a wrong key")


def test_a_page_of_another_origin_learns_why(guarded: TestClient) -> None:
    preflight = {"Origin": "http://page.example", "Access-Control-Request-Method": "POST"}
    preflight["Access-Control-Request-Headers"] = "authorization,x-api-key"
    assert guarded.options("/process", headers=preflight).status_code == 200
    assert post(guarded, {"Origin": "http://page.example"}).headers["access-control-allow-origin"] == "*"


def test_no_body_is_read_without_a_key() -> None:
    statuses: list[int] = []

    async def never(*_: object) -> Any:
        raise AssertionError("the request went on")

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    scope = {"type": "http", "method": "POST", "path": "/process", "headers": []}
    asyncio.run(Access(never, ["a"], None, lambda _: False)(scope, never, send))
    assert statuses[0] == 401


def test_keys_are_never_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), client_of(FakePredictor(), SA2VA_API_KEYS="sEcReT-1,sEcReT-2") as client:
        texts = [post(client, {"X-API-Key": key}).text for key in ("sEcReT-1", "sEcReT-3")]
        texts += [client.get("/docs.json", headers={"X-API-Key": "sEcReT-2"}).text]
    assert "sEcReT" not in "".join([caplog.text, *texts])


def test_settings_do_not_show_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SA2VA_API_KEYS", "sEcReT-1")
    settings = load_settings()
    assert settings.keys == ("sEcReT-1",)
    assert "sEcReT" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_keys_that_are_set_to_nothing_do_not_open_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().keys == ()
    monkeypatch.setenv("SA2VA_API_KEYS", "none")
    assert load_settings().keys == ()
    for broken in ("", " ", " , "):
        monkeypatch.setenv("SA2VA_API_KEYS", broken)
        with pytest.raises(StartupError, match="SA2VA_API_KEYS: no key in it"):
            load_settings()


def test_every_key_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bool] = []
    original = access.hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(original(one, other))
        return compared[-1]

    monkeypatch.setattr(access.hmac, "compare_digest", compare)
    ring = KeyRing(["a", "b", "c"])
    assert (ring.find(b"a"), ring.find(b"c"), ring.find(b"d")) == (0, 2, None)
    assert compared == [True, False, False, False, False, True, False, False, False]


class Clock:
    """A time that tests move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_holds_a_minute_and_refills_evenly() -> None:
    clock = Clock()
    limit = TokenBuckets(6, clock)
    assert [limit.take("a") for _ in range(6)] == [0] * 6
    assert limit.take("a") == pytest.approx(10)
    assert limit.take("b") == 0
    clock.now = 9.0
    assert limit.take("a") == pytest.approx(1)
    clock.now = 10.01
    assert limit.take("a") == 0
    assert limit.take("a") > 9
    clock.now = 10_000
    assert [limit.take("a") for _ in range(6)] == [0] * 6
    assert limit.take("a") > 0


def test_callers_are_forgotten_in_time_and_never_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MOST_CALLERS", 10)
    clock = Clock()
    limit = TokenBuckets(1, clock)
    for number in range(50):
        limit.take(str(number))
    assert len(limit._buckets) <= 11
    assert limit.take("49") > 0
    clock.now = 61
    assert limit.take("new") == 0
    assert len(limit._buckets) == 1


def test_a_key_over_its_rate_waits_and_others_do_not() -> None:
    with client_of(FakePredictor(), SA2VA_API_KEYS="a,b", SA2VA_RATE_LIMIT="3") as client:
        assert [post(client, {"X-API-Key": "a"}).status_code for _ in range(3)] == [200] * 3
        refused = post(client, {"Authorization": "Bearer a", "Origin": "http://page.example"})
        check_error(refused, 429, "too many requests")
        assert 15 <= int(refused.headers["retry-after"]) <= 20
        assert refused.headers["access-control-allow-origin"] == "*"
        assert post(client, {"X-API-Key": "b"}).status_code == 200
        assert client.get("/health").status_code == 200
        assert [post(client).status_code for _ in range(5)] == [401] * 5


def test_without_keys_the_address_counts() -> None:
    with client_of(FakePredictor(), SA2VA_RATE_LIMIT="2") as client:
        assert [post(client).status_code for _ in range(3)] == [200, 200, 429]
        assert [post(client, {"X-API-Key": str(i)}).status_code for i in range(2)] == [429] * 2
        assert client.get("/readyz").status_code == 200


def test_there_is_no_rate_unless_set(client: TestClient) -> None:
    assert Settings.model_fields["rate_limit"].default is None
    assert {post(client).status_code for _ in range(70)} == {200}


def test_the_generated_client_sends_its_token() -> None:
    with (
        server_of(FakePredictor(), SA2VA_API_KEYS="a key") as url,
        bentoml.SyncHTTPClient(url, token="a key") as client,
    ):
        answer: Any = client.process(base64Image=PICTURE, prompt="Please segment it.")  # type: ignore[attr-defined]
        assert coco.decode(answer["segments"][0]["mask"]).sum() == 768


NEAR = (ip_network("10.0.0.0/8"),)


@pytest.mark.parametrize(
    ("peer", "forwarded", "wanted"),
    [
        ("203.0.113.7", "198.51.100.1", "203.0.113.7"),  # a stranger's word
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1, 10.0.0.2", "198.51.100.1"),  # what the client itself wrote comes first
        ("10.0.0.1", "", ""),
        ("127.0.0.1", "198.51.100.1", "127.0.0.1"),
    ],
)
def test_forwarded_addresses_are_believed_from_the_operators_proxies(peer: str, forwarded: str, wanted: str) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode())]
    scope = {"type": "http", "headers": headers, "state": {"peer": peer}, "client": ("9.9.9.9", 1)}
    assert client_address(scope, NEAR) == wanted
    assert client_address(scope, ()) == peer


def test_wrong_keys_are_limited() -> None:
    with client_of(FakePredictor(), SA2VA_API_KEYS="right") as client:
        wrong = [client.get("/v1/models", headers={"X-API-Key": f"k{number}"}).status_code for number in range(40)]
        assert (wrong[0], wrong[-1]) == (401, 429)
        assert client.get("/v1/models", headers={"X-API-Key": "right"}).status_code == 200

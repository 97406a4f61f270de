"""Pictures by URL: from the hosts that are listed, within the limits, and from no address that a URL sneaks in."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterator
from typing import Any, NoReturn

import httpcore
import pytest
import uvloop

from sa2va_bento.web import fetch as module
from sa2va_bento.web.fetch import is_url
from tests.picture_host import PNG, Handler, PictureHost, fetch, policy, refused


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with PictureHost(None) as port:
        yield port


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("http://a/b", True),
        (" HTTPS://a", True),
        ("ftp://a", False),
        ("file:///etc/passwd", False),
        ("data:image/png;base64,aHR0cDovLw==", False),
        ("httpabc", False),
        ("", False),
    ],
)
def test_what_a_url_is(text: str, wanted: bool) -> None:
    assert is_url(text) == wanted


def test_a_listed_host_is_fetched_from(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(f"http://127.0.0.1:{port}?x=1#f", policy(f"127.0.0.1:{port}")) == PNG
    path, headers = Handler.requests[-1]
    assert path == "/?x=1"
    assert headers["Host"] == f"127.0.0.1:{port}"
    assert headers.keys() == {"Host", "User-Agent", "Accept", "Accept-Encoding"}


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:{port}/a",
        "http://127.0.0.1.evil.example:{port}/a",
        "http://evil.example/127.0.0.1:{port}",
        "http://127.0.0.2:{port}/a",
        "http://127.0.0.1/a",
        "http://127.0.0.1:1/a",
        "http://127.1:{port}/a",
        "http://2130706433:{port}/a",
        "http://0x7f000001:{port}/a",
        "http://127.0.0.1.:{port}/a",
        "http://[::ffff:127.0.0.1]:{port}/a",
    ],
)
def test_hosts_match_exactly(port: int, url: str) -> None:
    message = refused(url.format(port=port), policy(f"127.0.0.1:{port}"))
    assert "names a host that this service does not fetch from" in message


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}@evil.example/",
        "http://evil.example@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\\@evil.example/",
        "http://127.0.0.1:{port}/a b",
        "http://127.0.0.1:{port}/a\r\nX: y",
        "http://127.0.0.1:{port}/\u00e9",
        "http://127.0.0.1:99999/",
        "http://[::1/",
        "http://[",
        "http://",
        "http://127.0.0.1:{port}/" + "a" * 9000,
    ],
)
def test_tricks_are_refused(port: int, url: str) -> None:
    before = len(Handler.requests)
    refused(url.format(port=port), policy(f"127.0.0.1:{port}"))
    assert len(Handler.requests) == before


def test_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    async def get(parts: Any, _: object) -> bytes:
        return f"{parts.netloc}".encode()

    monkeypatch.setattr(module, "_get", get)
    plain, with_port = policy("a.example"), policy("a.example:8080", "B.example:443")
    assert fetch("http://A.example/", plain) == b"A.example"
    assert fetch("https://a.example:443/", plain)
    assert fetch("http://a.example:8080/", with_port)
    assert fetch("https://b.example/", with_port)
    for url, allowed in [
        ("http://a.example:443/", plain),
        ("http://a.example:8080/", plain),
        ("http://a.example/", with_port),
        ("http://b.example/", with_port),
    ]:
        assert "names a host" in refused(url, allowed)


ADDRESSES = {
    "127.0.0.1": False,
    "10.1.2.3": False,
    "172.16.0.1": False,
    "192.168.1.1": False,
    "169.254.169.254": False,
    "100.64.0.1": False,
    "0.0.0.0": False,
    "255.255.255.255": False,
    "240.0.0.1": False,
    "224.0.0.251": False,
    "192.0.2.1": False,
    "::1": False,
    "::": False,
    "fe80::1": False,
    "fc00::1": False,
    "ff02::1": False,
    "::ffff:10.0.0.1": False,
    "2002:0a00:0001::1": False,
    "64:ff9b::a00:1": False,
    "64:ff9b:1::a00:1": False,
    "2001::1": False,
    "fec0::1": False,
    "feff:ffff::1": False,
    "::7f00:1": False,
    "::8.8.8.8": False,
    "::ffff:0:10.0.0.1": False,
    "::ffff:0:8.8.8.8": False,
    "::ffff:192.88.99.1": False,
    "192.88.99.0": False,
    "192.88.99.255": False,
    "5f00::1": False,
    "3fff::1": False,
    "192.88.98.1": True,
    "192.88.100.1": True,
    "8.8.8.8": True,
    "2606:4700::1111": True,
    "::ffff:8.8.8.8": True,
}


@pytest.mark.parametrize(("address", "public"), ADDRESSES.items())
def test_public_addresses(address: str, public: bool) -> None:
    assert module._is_public(ipaddress.ip_address(address)) == public


class Names:
    """A resolver that gives each look-up its own answer and remembers what was connected to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.looked_up: list[str] = []
        self.connected: list[str] = []
        monkeypatch.setattr(module.socket, "getaddrinfo", self._resolve)
        monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", self._open)

    def _resolve(self, host: str, port: int, *_: object) -> list[Any]:
        self.looked_up.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self._answers.pop(0)]

    async def _open(self, address: str, *_: object) -> NoReturn:
        self.connected.append(address)
        raise httpcore.ConnectError


@pytest.mark.parametrize("answer", [["10.0.0.1"], ["8.8.8.8", "169.254.169.254"], ["127.0.0.1"]])
def test_a_listed_host_with_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch, answer: list[str]) -> None:
    names = Names(monkeypatch, answer)
    assert "an address that is not public" in refused("http://a.example/x", policy("a.example", private=False))
    assert names.connected == []


def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, ["8.8.8.8", "8.8.4.4"], ["127.0.0.1"])
    assert "can't be fetched" in refused("http://a.example/x", policy("a.example", private=False))
    assert names.looked_up == ["a.example"]
    assert names.connected == ["8.8.8.8", "8.8.4.4"]


def test_the_loopback_is_refused_unless_allowed(port: int) -> None:
    hosts = f"127.0.0.1:{port}"
    assert "not public" in refused(f"http://{hosts}/a", policy(hosts, private=False))
    assert fetch(f"http://{hosts}/a", policy(hosts)) == PNG


def test_it_runs_on_the_loop_that_serves(port: int) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        hosts = f"127.0.0.1:{port}"
        assert runner.run(module.fetch(f"http://{hosts}/redirect?to=/a", policy(hosts))) == PNG


def test_a_host_is_asked_by_its_name_at_the_address_that_was_checked(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host: str, port: int, *_: object) -> list[Any]:
        assert host == "a.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(module.socket, "getaddrinfo", resolve)
    assert fetch(f"http://a.example:{port}/a", policy(f"a.example:{port}")) == PNG
    assert Handler.requests[-1][1]["Host"] == f"a.example:{port}"


def test_pictures_are_fetched_side_by_side(port: int) -> None:
    hosts = f"127.0.0.1:{port}"

    async def all_of_them() -> list[bytes]:
        return await asyncio.gather(*(module.fetch(f"http://{hosts}/a", policy(hosts)) for _ in range(20)))

    assert asyncio.run(all_of_them()) == [PNG] * 20


def test_a_fetch_may_be_cancelled(port: int) -> None:
    hosts = f"127.0.0.1:{port}"

    async def cancelled() -> None:
        task = asyncio.create_task(module.fetch(f"http://{hosts}/drip", policy(hosts)))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())

"""Pictures by URL: from the hosts that are listed, within the limits, and from no address that a URL sneaks in."""

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from sa2va_bento.web import fetch as module
from sa2va_bento.web.fetch import fetch, is_url
from tests.picture_host import PNG, Handler, PictureHost, policy, refused


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
        "http://",
        "http://127.0.0.1:{port}/" + "a" * 9000,
    ],
)
def test_tricks_are_refused(port: int, url: str) -> None:
    before = len(Handler.requests)
    refused(url.format(port=port), policy(f"127.0.0.1:{port}"))
    assert len(Handler.requests) == before


def test_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_get", lambda parts, *_: f"{parts.netloc}".encode())
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
        self._connect = socket.create_connection
        monkeypatch.setattr(module.socket, "getaddrinfo", self._resolve)
        monkeypatch.setattr(module.socket, "create_connection", self._open)

    def _resolve(self, host: str, port: int, **_: object) -> list[Any]:
        self.looked_up.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self._answers.pop(0)]

    def _open(self, address: tuple[str, int], timeout: float) -> socket.socket:
        self.connected.append(address[0])
        raise ConnectionRefusedError


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

"""Pictures by URL: from the hosts that are listed, within the limits, and from no address that a URL sneaks in."""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from starlette.testclient import TestClient

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError, StartupError
from sa2va_bento.settings import Settings, load_settings
from sa2va_bento.web import fetch as module
from sa2va_bento.web.fetch import FetchPolicy, fetch, is_url
from tests.fakes import FakePredictor
from tests.picture_host import PNG, Handler, PictureHost
from tests.serving import client_of
from tests.test_errors_http import check_error

LIMIT = 100_000


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with PictureHost(None) as port:
        yield port


def policy(*hosts: str, private: bool = True, timeout_s: float = 5) -> FetchPolicy:
    settings = Settings(image_url_hosts=",".join(hosts), image_url_private=private, image_url_timeout_s=timeout_s)
    return FetchPolicy(FetchPolicy.of(settings).hosts, LIMIT, timeout_s, private)


def refused(url: str, allowed: FetchPolicy) -> str:
    with pytest.raises(BadRequestError) as caught:
        fetch(url, allowed)
    assert caught.value.message.startswith("base64Image: the URL ")
    return caught.value.message


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


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(port: int, status: int) -> None:
    hosts = f"127.0.0.1:{port}"
    assert fetch(f"http://{hosts}/redirect?to=/a&status={status}", policy(hosts)) == PNG


@pytest.mark.parametrize(
    ("target", "fragment"),
    [
        ("http://localhost/a", "names a host"),
        ("http://169.254.169.254/latest", "names a host"),
        ("//localhost/a", "names a host"),
        ("file:///etc/passwd", "must begin with"),
        ("ftp://127.0.0.1/", "must begin with"),
        ("/redirect?to=/redirect", "redirected more than 3 times"),
    ],
)
def test_each_redirect_is_judged_anew(port: int, target: str, fragment: str) -> None:
    hosts = f"127.0.0.1:{port}"
    url = f"http://{hosts}/redirect?to={target}"
    if "redirect" in target:
        url = f"http://{hosts}/redirect?to=/redirect%3Fto%3D/redirect%253Fto%253D/redirect%25253Fto%25253D/a"
    assert fragment in refused(url, policy(hosts))


def test_three_redirects_are_the_most(port: int) -> None:
    hosts = f"127.0.0.1:{port}"
    url = f"http://{hosts}/redirect?to=/redirect%3Fto%3D/redirect%253Fto%253D/a"
    assert fetch(url, policy(hosts)) == PNG


@pytest.mark.parametrize(
    ("path", "fragment"),
    [
        ("missing", "answers 404"),
        ("broken", "breaks off"),
        ("compressed", "a compressed body"),
        ("x", "can't be fetched"),
    ],
)
def test_what_comes_back_must_be_whole(port: int, path: str, fragment: str) -> None:
    hosts = f"127.0.0.1:{port}"
    assert fragment in refused(f"http://{hosts}/{path}", policy(hosts))


@pytest.mark.parametrize("path", ["huge", "endless"])
def test_too_many_bytes_are_not_read(port: int, path: str) -> None:
    hosts = f"127.0.0.1:{port}"
    with pytest.raises(PayloadTooLargeError, match="over the limit"):
        fetch(f"http://{hosts}/{path}", policy(hosts))


@pytest.mark.parametrize("path", ["drip", "drippingheaders"])
def test_a_host_that_drips_is_cut_off_in_time(port: int, path: str) -> None:
    hosts, begun = f"127.0.0.1:{port}", time.monotonic()
    assert "within 0.4 s" in refused(f"http://{hosts}/{path}", policy(hosts, timeout_s=0.4))
    assert 0.3 < time.monotonic() - begun < 2


def test_a_host_that_says_nothing_is_cut_off_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]}"
        for scheme in ("http", "https"):
            begun = time.monotonic()
            assert "within 0.3 s" in refused(f"{scheme}://{hosts}/", policy(hosts, timeout_s=0.3))
            assert time.monotonic() - begun < 2


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def secure(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.mark.parametrize(
    ("name", "trusted", "good"), [("127.0.0.1", True, True), ("b.example", True, False), ("127.0.0.1", False, False)]
)
def test_certificates_are_verified(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool, good: bool
) -> None:
    context = ssl.create_default_context()
    if trusted:
        authority.configure_trust(context)
        monkeypatch.setattr(module.ssl, "create_default_context", lambda: context)
    with PictureHost(secure(authority, name)) as port:
        url, allowed = f"https://127.0.0.1:{port}/a", policy(f"127.0.0.1:{port}")
        if good:
            assert fetch(url, allowed) == PNG
        else:
            assert "can't be fetched" in refused(url, allowed)


def test_a_dripping_host_is_cut_off_behind_tls_too(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    monkeypatch.setattr(module.ssl, "create_default_context", lambda: context)
    with PictureHost(secure(authority, "127.0.0.1")) as port:
        hosts, begun = f"127.0.0.1:{port}", time.monotonic()
        assert "within 0.5 s" in refused(f"https://{hosts}/drip", policy(hosts, timeout_s=0.5))
        assert time.monotonic() - begun < 2


def test_a_request_by_url(port: int) -> None:
    hosts = f"127.0.0.1:{port}"
    with client_of(FakePredictor(), SA2VA_IMAGE_URL_HOSTS=hosts, SA2VA_IMAGE_URL_PRIVATE="true") as client:
        assert ask(client, f"http://{hosts}/a").json()["image"] == {"width": 48, "height": 32}
        form = client.post("/process", files={"base64Image": (None, f"http://{hosts}/a"), "prompt": (None, "hi")})
        assert form.status_code == 200
        check_error(ask(client, f"http://{hosts}/missing"), 400, "the url answers 404")
        check_error(ask(client, "http://elsewhere.example/"), 400, "names a host")
        check_error(ask(client, f"http://{hosts}/endless"), 413, "limit of 32 MiB")


def test_private_addresses_are_refused_by_default(port: int) -> None:
    with client_of(FakePredictor(), SA2VA_IMAGE_URL_HOSTS=f"127.0.0.1:{port}") as client:
        check_error(ask(client, f"http://127.0.0.1:{port}/a"), 400, "not public")


def test_unless_hosts_are_listed_no_url_is_fetched(client: TestClient, port: int) -> None:
    before = len(Handler.requests)
    check_error(ask(client, f"http://127.0.0.1:{port}/a"), 400, "SA2VA_IMAGE_URL_HOSTS is not set")
    assert len(Handler.requests) == before


def ask(client: TestClient, url: str) -> Any:
    return client.post("/process", json={"base64Image": url, "prompt": "Please segment it."})


def test_the_loop_goes_on_while_a_picture_is_fetched(port: int) -> None:
    hosts = f"127.0.0.1:{port}"
    environment = {"SA2VA_IMAGE_URL_HOSTS": hosts, "SA2VA_IMAGE_URL_PRIVATE": "true", "SA2VA_IMAGE_URL_TIMEOUT_S": "1"}
    with client_of(FakePredictor(), **environment) as client:
        slow = [threading.Thread(target=ask, args=(client, f"http://{hosts}/drip")) for _ in range(8)]
        for thread in slow:
            thread.start()
        time.sleep(0.1)
        begun = time.monotonic()
        assert ask(client, f"http://{hosts}/a").status_code == 200
        assert time.monotonic() - begun < 0.6
        for thread in slow:
            thread.join()


@pytest.mark.parametrize("hosts", ["http://a.example", "*", "a.example/x", "a.example:99999", "a example"])
def test_hosts_that_make_no_sense_are_named_at_the_start(monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    monkeypatch.setenv("SA2VA_IMAGE_URL_HOSTS", f"b.example,{hosts}")
    with pytest.raises(StartupError, match=r"setting SA2VA_IMAGE_URL_HOSTS: .* is not a host"):
        load_settings()

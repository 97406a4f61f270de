"""Hosts of pictures that redirect, fail, lie or dawdle, and requests whose pictures come from them."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from starlette.testclient import TestClient

from sa2va_bento.errors import PayloadTooLargeError, StartupError
from sa2va_bento.settings import load_settings
from sa2va_bento.web import fetch as module
from tests.checks import check_error
from tests.fakes import FakePredictor
from tests.picture_host import PNG, Handler, PictureHost, fetch, policy, refused
from tests.serving import client_of


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with PictureHost(None) as port:
        yield port


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
        ("http://[", "is not valid"),
        ("//[::1", "is not valid"),
        ("http://[not-an-address]/", "is not valid"),
        ("http://127.0.0.1:99999/", "is not valid"),
        ("/a%20b", "is not valid"),
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
        ("brokenchunks", "breaks off"),
        ("negativechunk", "breaks off"),
        ("negative", "can't be fetched"),
        ("compressed", "a compressed body"),
        ("x", "can't be fetched"),
    ],
)
def test_what_comes_back_must_be_whole(port: int, path: str, fragment: str) -> None:
    hosts = f"127.0.0.1:{port}"
    assert fragment in refused(f"http://{hosts}/{path}", policy(hosts))


@pytest.mark.parametrize("path", ["huge", "endless", "hugechunk"])
def test_too_many_bytes_are_not_read(port: int, path: str) -> None:
    hosts = f"127.0.0.1:{port}"
    with pytest.raises(PayloadTooLargeError, match="over the limit"):
        fetch(f"http://{hosts}/{path}", policy(hosts))


def test_what_follows_the_announced_bytes_is_not_read(port: int) -> None:
    hosts = f"127.0.0.1:{port}"
    assert fetch(f"http://{hosts}/more", policy(hosts)) == PNG


def test_no_cookie_is_kept(port: int) -> None:
    hosts = f"127.0.0.1:{port}"
    assert fetch(f"http://{hosts}/cookie?to=/a", policy(hosts)) == PNG
    assert "Cookie" not in Handler.requests[-1][1]


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
        monkeypatch.setattr(module, "_tls", lambda: context)
    with PictureHost(secure(authority, name)) as port:
        url, allowed = f"https://127.0.0.1:{port}/a", policy(f"127.0.0.1:{port}")
        if good:
            assert fetch(url, allowed) == PNG
        else:
            assert "can't be fetched" in refused(url, allowed)


def test_a_dripping_host_is_cut_off_behind_tls_too(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    monkeypatch.setattr(module, "_tls", lambda: context)
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
        check_error(ask(client, f"http://{hosts}/redirect?to=http://["), 400, "is not valid")
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

"""The playground as it is served: headers, who is sent there, and that it can be switched off."""

import gzip
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import pytest
from starlette.testclient import TestClient

from sa2va_bento.web.playground.pages import FOLDER, MEDIA_TYPES, POLICY, static_files
from tests.fakes import FakePredictor
from tests.serving import client_of

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
FILES = sorted(static_files())
MOST_LINES = 300


def test_the_page_comes_with_a_strict_policy(client: TestClient) -> None:
    response = client.get("/ui")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data: blob:",
        "media-src": "blob:",
        "connect-src": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_as_what_it_is(client: TestClient, name: str) -> None:
    response = client.get(f"/ui/{name}")
    assert response.status_code == 200
    assert response.content == (FOLDER / name).read_bytes()
    assert response.headers["content-type"] == MEDIA_TYPES[Path(name).suffix]
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["index.html", "js/main.js", "examples/clip.mp4"])
def test_a_copy_is_good_until_the_file_changes(client: TestClient, name: str) -> None:
    etag = client.get(f"/ui/{name}").headers["etag"]
    for known in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        again = client.get(f"/ui/{name}", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get(f"/ui/{name}", headers={"If-None-Match": '"other"'}).status_code == 200


def test_text_is_compressed(client: TestClient) -> None:
    with client.stream("GET", "/ui", headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["content-encoding"] == "gzip"
        assert gzip.decompress(b"".join(response.iter_raw())) == (FOLDER / "index.html").read_bytes()


@pytest.mark.parametrize(
    "name",
    ["", "nothing.js", "../pages.py", "..%2fpages.py", "js/../../pages.py", "%2e%2e/pages.py", "js", "/etc/passwd"],
)
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    response = client.get(f"/ui/{name}", follow_redirects=False)
    assert response.status_code in (308, 404)
    assert b"import" not in response.content


def test_head_and_a_slash(client: TestClient) -> None:
    assert client.head("/ui").status_code == 200
    assert client.head("/ui").content == b""
    response = client.get("/ui/", follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (308, "../ui")
    assert urljoin("http://host/behind/a/proxy/ui/", response.headers["location"]) == "http://host/behind/a/proxy/ui"


@pytest.mark.parametrize("accept", [BROWSER, "text/html", "text/html;q=0.5, */*", "application/xhtml+xml, */*;q=0.1"])
def test_browsers_are_sent_there(client: TestClient, accept: str) -> None:
    response = client.get("/", headers={"Accept": accept}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (307, "ui")
    assert "Accept" in response.headers["vary"]


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "application/json",
        "application/json, text/html;q=0.9",
        "text/html;q=0",
        "text/plain",
        "",
        "html",
    ],
)
def test_api_clients_get_what_the_original_answers(client: TestClient, accept: str) -> None:
    response = client.get("/", headers={"Accept": accept}, follow_redirects=False)
    assert response.status_code == 200
    assert response.content == client.get("/").content
    assert list(response.json()) == ["message", "endpoints"]
    assert response.json()["message"] == "Welcome to the Sa2VA API Server"
    assert not any(path.startswith("/ui") for path in response.json()["endpoints"])


@pytest.fixture(scope="module")
def without() -> Iterator[TestClient]:
    with client_of(FakePredictor(), SA2VA_UI="off") as client:
        yield client


@pytest.mark.parametrize("path", ["/ui", "/ui/", "/ui/js/main.js", "/ui/index.html"])
def test_switched_off_it_is_not_there(without: TestClient, path: str) -> None:
    response = without.get(path, headers={"Accept": BROWSER}, follow_redirects=False)
    assert response.status_code == 404
    assert isinstance(response.json()["error"], str)


def test_switched_off_browsers_get_json(without: TestClient, client: TestClient) -> None:
    response = without.get("/", headers={"Accept": BROWSER}, follow_redirects=False)
    assert response.status_code == 200
    assert response.content == client.get("/").content


def test_it_needs_no_key_and_no_model() -> None:
    with client_of(None, SA2VA_API_KEYS="a key", SA2VA_RATE_LIMIT="1") as client:
        for name in ("ui", "ui/index.html", "ui/js/main.js", "ui/styles/base.css", "ui/js/api/http.js"):
            assert client.get(f"/{name}").status_code == 200
        assert client.post("/ui").status_code in (401, 405)


class Links(HTMLParser):
    """What a page loads, and what of it is written inline."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.urls += [url for name in ("src", "href") if (url := given.get(name)) and not url.startswith("#")]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


def test_the_page_loads_its_own_files_and_all_of_its_modules_at_once() -> None:
    links = Links()
    links.feed((FOLDER / "index.html").read_text())
    assert links.inline == []
    loaded = {url.removeprefix("ui/") for url in links.urls}
    assert loaded <= set(FILES)
    modules = {name for name in FILES if name.endswith((".js", ".css"))}
    assert modules - loaded == {"js/types.js"}  # types alone


def test_modules_import_what_there_is() -> None:
    found = 0
    for path in FOLDER.rglob("*.js"):
        for name in re.findall(r'^(?:import|} from).*"(\.[^"]+)"', path.read_text(), re.MULTILINE):
            assert (path.parent / name).resolve().is_file(), (path.name, name)
            found += 1
    assert found > 50


def test_it_is_small_and_its_files_are_short() -> None:
    texts = [path for path in FOLDER.rglob("*") if path.suffix in (".js", ".css", ".html")]
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 300_000
    assert all(len(path.read_text().splitlines()) < MOST_LINES for path in texts)


def test_every_file_has_a_kind() -> None:
    assert {path.suffix for path in FOLDER.rglob("*") if path.is_file()} <= MEDIA_TYPES.keys()
    assert len(FILES) == sum(path.is_file() for path in FOLDER.rglob("*"))


def test_the_document_names_the_page(client: TestClient) -> None:
    paths = json.loads(client.get("/docs.json").content)["paths"]
    assert "text/html" in paths["/ui"]["get"]["responses"]["200"]["content"]
    assert "404" in paths["/ui/{name}"]["get"]["responses"]

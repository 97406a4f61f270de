"""A Hugging Face Hub on this machine: the few routes that fetching a checkpoint asks for."""

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """Serves `files` as the repository `model`, whose only revisions are `main` and `COMMIT`; `gated/...` is
    gated, `denied/...` is not for this token, and the token itself is no good for `expired/...`.
    `cut` names a file whose next download breaks off near its end: what came is kept by tens of megabytes. `ranges` has
    the byte ranges that were asked for."""

    files: dict[str, bytes]
    model: str = "owner/name"
    cut: str | None = None
    ranges: list[tuple[str, str]] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    url: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path):
            self._describe(*found.groups())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._file(found[2])
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
            self._describe(found[1], "revision", "main")
        else:
            self._answer(404, b"{}")

    def _describe(self, model: str, what: str, revision: str) -> None:
        if model.startswith("gated/"):
            self._answer(403, b"{}", **{"X-Error-Code": "GatedRepo"})
        elif model.startswith("denied/"):
            self._answer(403, b"{}")
        elif model.startswith("expired/"):
            self._answer(401, b'{"error": "Invalid credentials"}', **{"X-Error-Message": "Invalid credentials"})
        elif model != self.hub.model:
            self._answer(404, b"{}", **{"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", COMMIT):
            self._answer(404, b"{}", **{"X-Error-Code": "RevisionNotFound"})
        elif what == "tree":
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": _tag(content)}
                for name, content in self.hub.files.items()
            ]
            self._answer(200, json.dumps(entries).encode())
        else:
            siblings = [{"rfilename": name} for name in self.hub.files]
            self._answer(200, json.dumps({"id": model, "sha": COMMIT, "siblings": siblings}).encode())

    def _file(self, name: str) -> None:
        if name not in self.hub.files:
            self._answer(404, b"", **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        content, wanted = self.hub.files[name], self.headers.get("Range", "")
        headers = {"ETag": f'"{_tag(content)}"', "X-Repo-Commit": COMMIT}
        if self.command == "GET":
            self.hub.fetched.append(name)
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted):
            self.hub.ranges.append((name, wanted))
            start, end = int(found[1]), min(int(found[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            self._answer(206, content[start : end + 1], **headers)
        elif self.command == "GET" and self.hub.cut == name:
            self.hub.cut = None
            self._answer(200, content[: len(content) * 9 // 10], **headers, **{"Content-Length": str(len(content))})
            self.close_connection = True
        else:
            self._answer(200, content, **headers)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _tag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@contextmanager
def serve(folder: Path) -> Iterator[FakeHub]:
    """A hub whose repository holds a folder's files."""
    hub = FakeHub({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    handler = type("Bound", (Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Points huggingface-hub, already imported, at a hub and an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("TRANSFORMERS_CACHE", str(cache))

"""`GET /ui` and its files: what they are served with, and which callers of `GET /` are shown them.

Nothing is loaded from elsewhere and nothing is inline: the policy allows this service's own files, and pictures and
videos that the page itself holds (`blob:`, `data:`).
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from sa2va_bento.web.runtime import Runtime

FOLDER = Path(__file__).parent / "static"
PAGE = "index.html"
MEDIA_TYPES: Mapping[str, str] = MappingProxyType(
    {
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".svg": "image/svg+xml",
        ".png": "image/png",
        ".mp4": "video/mp4",
    }
)
"""Of the kinds of files that the page has."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src blob:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": POLICY,
        "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
)
"""Of every answer here. A copy may be kept, and is asked about before it is used: a new release is seen at once."""
_MEDIA_RANGE = re.compile(r"\s*([\w*+.-]+/[\w*+.-]+)\s*((?:;[^,]*)?)")
_WEIGHT = re.compile(r";\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*(?:;|$)", re.IGNORECASE)


@dataclass(frozen=True)
class StaticFile:
    """A file of the page. The tag is a weak one: compressed or not, it means the same."""

    body: bytes
    media_type: str
    etag: str


@cache
def static_files() -> Mapping[str, StaticFile]:
    """Every file by its path below the folder; what is not here can't be asked for."""
    paths = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.suffix in MEDIA_TYPES)
    return MappingProxyType({path.relative_to(FOLDER).as_posix(): _read(path) for path in paths})


def _read(path: Path) -> StaticFile:
    body = path.read_bytes()
    return StaticFile(body, MEDIA_TYPES[path.suffix], f'W/"{hashlib.sha256(body).hexdigest()[:24]}"')


async def answer_page(request: Request, runtime: Runtime) -> Response:
    """`GET /ui`. One that ends with a slash is sent to the one without, from which the page's links are meant."""
    if not is_on(runtime):
        return _not_found()
    if request.scope.get("raw_path", b"").endswith(b"/"):
        return RedirectResponse("../ui", 308)
    return _answer(request, PAGE)


async def answer_file(request: Request, runtime: Runtime) -> Response:
    """`GET /ui/...`: a file of the page."""
    return _answer(request, request.path_params["name"]) if is_on(runtime) else _not_found()


def is_on(runtime: Runtime) -> bool:
    """Whether the operator serves the page."""
    return runtime.settings.ui == "on"


def _answer(request: Request, name: str) -> Response:
    file = static_files().get(name)
    if file is None:
        return _not_found()
    headers = {**HEADERS, "ETag": file.etag}
    if _is_known(request.headers.get("if-none-match", ""), file.etag):
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers=headers, media_type=file.media_type)


def _is_known(given: str, etag: str) -> bool:
    """RFC 9110 13.1.2: tags are compared without regard to their strength."""
    tags = [tag.strip().removeprefix("W/") for tag in given.split(",")]
    return given.strip() == "*" or etag.removeprefix("W/") in tags


def _not_found() -> Response:
    return JSONResponse({"error": "there is no such page"}, 404)


def wants_page(request: Request) -> bool:
    """Whether a caller of `GET /` names HTML and likes it no less than JSON, as browsers do; clients that take anything
    (`*/*`) get what the original answers."""
    weights: dict[str, float] = {}
    for kind, parameters in _MEDIA_RANGE.findall(request.headers.get("accept", "")):
        weight = _WEIGHT.search(parameters)
        weights[kind.lower()] = float(weight[1]) if weight else 1.0
    html = max(weights.get("text/html", 0), weights.get("application/xhtml+xml", 0))
    return html > 0 and html >= weights.get("application/json", 0)

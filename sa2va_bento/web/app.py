"""The routes beside BentoML's own, as the table of endpoints has them."""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sa2va_bento.web.endpoints import ENDPOINTS, Handler
from sa2va_bento.web.runtime import Runtime

METHODS = ("DELETE", "OPTIONS", "PATCH", "PUT")


def build_app(runtime: Runtime) -> Starlette:
    """The app that is mounted at `/` beside BentoML's own routes."""
    ours = [endpoint for endpoint in ENDPOINTS if endpoint.handler]
    routes = [Route(e.path, _bound(e.handler, runtime), methods=[e.method]) for e in ours if e.handler]
    shared = {e.path for e in ENDPOINTS if e.handler is None} & {e.path for e in ours}
    return _Routes(routes=[*routes, *(Route(path, _no_such_method, methods=METHODS) for path in sorted(shared))])


class _Routes(Starlette):
    """Routes and nothing around them: errors travel on to the layers around BentoML's app, which answer all of them."""

    def build_middleware_stack(self) -> ASGIApp:
        return self.router


def _bound(handler: Handler, runtime: Runtime) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await handler(request, runtime)

    return endpoint


async def _no_such_method(_: Request) -> Response:
    """On a path one of whose methods is BentoML's route, and another ours."""
    return Response(status_code=405, headers={"Allow": "GET, HEAD, POST"})

"""The routes beside BentoML's own, as the table of endpoints has them."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sa2va_bento.web.endpoint import Handler
from sa2va_bento.web.endpoints import ENDPOINTS
from sa2va_bento.web.runtime import Runtime

METHODS = ("DELETE", "OPTIONS", "PATCH", "PUT")


def build_app(runtime: Runtime) -> Starlette:
    """The app that is mounted at `/` beside BentoML's own routes."""
    handlers: dict[str, dict[str, Handler]] = {}
    for endpoint in ENDPOINTS:
        if endpoint.handler:
            handlers.setdefault(endpoint.path, {})[endpoint.method] = endpoint.handler
    routes = [Route(path, _bound(by_method, runtime), methods=[*by_method]) for path, by_method in handlers.items()]
    shared = {endpoint.path for endpoint in ENDPOINTS if endpoint.handler is None} & handlers.keys()
    return _Routes(routes=[*routes, *(Route(path, _no_such_method, methods=METHODS) for path in sorted(shared))])


class _Routes(Starlette):
    """Routes and nothing around them: errors travel on to the layers around BentoML's app, which answer all of them."""

    def build_middleware_stack(self) -> ASGIApp:
        return self.router


def _bound(by_method: Mapping[str, Handler], runtime: Runtime) -> Callable[[Request], Awaitable[Response]]:
    """One handler for a path's methods; HEAD is a GET whose body stays behind."""

    async def endpoint(request: Request) -> Response:
        return await by_method["GET" if request.method == "HEAD" else request.method](request, runtime)

    return endpoint


async def _no_such_method(_: Request) -> Response:
    """On a path one of whose methods is BentoML's route, and another ours."""
    return Response(status_code=405, headers={"Allow": "GET, HEAD, POST"})

"""The routes beside BentoML's own: `GET /` and `GET /health` as the original's clients know them, the stream,
and OpenAI's."""

from importlib.metadata import version

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sa2va_bento import __version__
from sa2va_bento.errors import NotReadyError
from sa2va_bento.schemas import HealthResponse
from sa2va_bento.web.openai import openai_routes
from sa2va_bento.web.openapi import build_document
from sa2va_bento.web.responses import guarded
from sa2va_bento.web.runtime import Runtime
from sa2va_bento.web.stream import answer_stream

ENDPOINTS = {
    "/health": "GET - Health check and server status",
    "/process": "POST - Process image with text prompt",
    "/process_stream": "POST - The same, answered as server-sent events",
    "/v1/chat/completions": "POST - OpenAI chat completions",
    "/v1/models": "GET - The served model, for OpenAI clients",
}
WELCOME = {"message": "Welcome to the Sa2VA API Server", "endpoints": ENDPOINTS}
VERSIONS = {"sa2va_bento": __version__, "bentoml": version("bentoml"), "torch": version("torch")}


def build_app(runtime: Runtime) -> Starlette:
    """The app that is mounted at `/` beside BentoML's own routes."""

    async def welcome(_: Request) -> Response:
        return JSONResponse(WELCOME)

    async def health(_: Request) -> Response:
        return answer_health(runtime)

    async def health_otherwise(_: Request) -> Response:
        return Response(status_code=405, headers={"Allow": "GET, HEAD, POST"})  # POST is BentoML's route

    async def docs(_: Request) -> Response:
        return JSONResponse(build_document(keys=bool(runtime.settings.keys)))

    async def stream(request: Request) -> Response:
        return await answer_stream(request, runtime)

    return Starlette(
        routes=[
            Route("/", guarded(welcome)),
            Route("/health", guarded(health)),
            Route("/health", guarded(health_otherwise), methods=["DELETE", "OPTIONS", "PATCH", "PUT"]),
            Route("/docs.json", guarded(docs)),
            Route("/process_stream", guarded(stream), methods=["POST"]),
            *openai_routes(runtime),
        ]
    )


def answer_health(runtime: Runtime) -> Response:
    """200 and what is running; 503 while the model loads or when it is gone."""
    try:
        model = runtime.model
    except NotReadyError as error:
        body = {"status": "error", "message": error.message, "error": error.message}
        return JSONResponse(body, error.status, {"Retry-After": str(error.retry_after_s)})
    running = HealthResponse(
        uptime=str(runtime.uptime),
        started_at=runtime.started_at.isoformat(),
        model_path=runtime.settings.model_path or runtime.settings.model_name,
        endpoints=ENDPOINTS,
        family=model.info.get("family", ""),
        device=model.info.get("device", ""),
        dtype=model.info.get("dtype", ""),
        versions=VERSIONS,
        queue_depth=model.queue_depth,
    )
    return JSONResponse(running.model_dump())

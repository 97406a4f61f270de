"""The one table of endpoints. Routes, the list of `GET /`, open paths, metric labels and the OpenAPI document follow
from it; the README's table is tested against it."""

import asyncio
from functools import cache

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import compile_path
from starlette.types import Scope

from sa2va_bento import metrics
from sa2va_bento.web.endpoint import Endpoint
from sa2va_bento.web.health import answer_health
from sa2va_bento.web.jobs.routes import (
    answer_job,
    answer_job_delete,
    answer_job_events,
    answer_job_result,
)
from sa2va_bento.web.jobs.schemas import JobQuestion, JobResultQuestion, JobStatus, VideoRequest, VideoResult
from sa2va_bento.web.openai.routes import answer_chat, answer_model, answer_models
from sa2va_bento.web.openai.schemas import ChatCompletion, ChatRequest, ModelCard, ModelList
from sa2va_bento.web.openapi import document_bytes
from sa2va_bento.web.playground import pages
from sa2va_bento.web.runtime import Runtime
from sa2va_bento.web.schemas import HealthErrorResponse, HealthResponse, ProcessRequest, ProcessResponse

ASKING = (400, 401, 413, 415, 429, 500, 503, 504)
"""What can go wrong with a question."""


_MASKS = (
    "mask_format",
    "string",
    "How masks are encoded: rle, png, polygon, probability or none; unset as the job has it",
)
RESULT_QUERY = (
    ("format", "string", "json, ndjson (a line a frame), youtube_vis, coco_vid, zip, overlay or masks (MP4)"),
    _MASKS,
    ("start", "integer", "First frame of the JSON or NDJSON result"),
    ("end", "integer", "The frame after the last"),
)
EVENTS_QUERY = (_MASKS, ("last_event_id", "string", "As the `Last-Event-ID` header"))


async def welcome(request: Request, runtime: Runtime) -> Response:
    """`GET /`, as the original's clients know it; browsers are sent to the page."""
    vary = {"Vary": "Accept"}
    if pages.is_on(runtime) and pages.wants_page(request):
        return RedirectResponse("ui", 307, vary)  # relative: a proxy may have taken a prefix off
    return JSONResponse({"message": "Welcome to the Sa2VA API Server", "endpoints": listed()}, headers=vary)


async def health(_: Request, runtime: Runtime) -> Response:
    """`GET /health`, as the original's clients know it."""
    return answer_health(runtime, listed())


async def docs(_: Request, runtime: Runtime) -> Response:
    """`GET /docs.json`."""
    document = await asyncio.to_thread(document_bytes, ENDPOINTS, keys=bool(runtime.settings.keys))
    return Response(document, media_type="application/json")


async def prometheus(_: Request, runtime: Runtime) -> Response:
    """`GET /metrics`."""
    return Response(await asyncio.to_thread(metrics.exposition), headers={"Content-Type": metrics.CONTENT_TYPE})


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/", "welcome", "What this is", welcome, is_open=True, answer="object"),
    Endpoint(
        "GET",
        "/health",
        "health",
        "What is running",
        health,
        listed="GET - Health check and server status",
        is_open=True,
        answer=HealthResponse,
        not_ready=HealthErrorResponse,
    ),
    Endpoint("GET", "/ui", "ui", "The playground", pages.answer_page, is_open=True, answer="page", errors=(404,)),
    Endpoint(
        "GET",
        "/ui/{name:path}",
        "ui_file",
        "A file of the playground",
        pages.answer_file,
        is_open=True,
        answer="file",
        errors=(404,),
    ),
    Endpoint(
        "POST",
        "/health",
        "health_post",
        "What is running",
        answer=HealthResponse,
        errors=(401, 429),
        not_ready=HealthErrorResponse,
    ),
    Endpoint(
        "POST",
        "/process",
        "process",
        "Answers a prompt about a picture",
        listed="POST - Process image with text prompt",
        tag="answers",
        takes=ProcessRequest,
        takes_form=True,
        answer=ProcessResponse,
        errors=ASKING,
    ),
    Endpoint(
        "POST",
        "/process_stream",
        "process_stream",
        "The same, while it is made",
        listed="POST - The same, answered as server-sent events",
        tag="answers",
        takes=ProcessRequest,
        takes_form=True,
        events=("start", "token", "segment", "done", "error"),
        events_are="Server-sent events: `start` (`request_id`, `model`) at once, then `token` (`text`) and `segment` "
        "(one of `segments`) as they come, at last `done` (the answer of `/process`) or `error` (`error`, `status`)",
        errors=ASKING,
    ),
    Endpoint(
        "POST",
        "/process_video",
        "process_video",
        "Answers prompts about a video and follows what it names, as a job",
        listed="POST - Process a video with text prompts, as a job",
        tag="video",
        takes=VideoRequest,
        takes_form=True,
        accepted=JobStatus,
        answer=VideoResult,
        errors=(*ASKING, 507),
    ),
    Endpoint(
        "GET",
        "/jobs/{job_id}",
        "job",
        "Where a job stands",
        answer_job,
        listed="GET - Where a video job stands; /result, /events, DELETE",
        tag="video",
        answer=JobStatus,
        errors=(401, 404, 429, 503),
    ),
    Endpoint(
        "GET",
        "/jobs/{job_id}/result",
        "job_result",
        "What a job has found",
        answer_job_result,
        tag="video",
        query=RESULT_QUERY,
        answer=VideoResult,
        errors=(400, 401, 404, 409, 413, 415, 429, 500, 503, 507),
    ),
    Endpoint(
        "GET",
        "/jobs/{job_id}/events",
        "job_events",
        "What a job says and finds, as it comes",
        answer_job_events,
        tag="video",
        query=EVENTS_QUERY,
        events=("state", "text", "reply", "frame", "restart", "done", "error", "cancelled"),
        events_are="Server-sent events: `state` (as `GET /jobs/{job_id}`), `text` (`question`, `text`), `reply`, "
        "`frame` (a line of the NDJSON result), `restart`, at last `done`, `error` or `cancelled`. With "
        "`Last-Event-ID` the stream goes on after that event",
        errors=(400, 401, 404, 429, 503),
    ),
    Endpoint(
        "DELETE",
        "/jobs/{job_id}",
        "job_delete",
        "Stops a job; removes one that has ended",
        answer_job_delete,
        tag="video",
        accepted=JobStatus,
        answer="removed",
        errors=(401, 404, 429, 503),
    ),
    Endpoint(
        "POST",
        "/job",
        "job_post",
        "Where a job stands, for clients that only post",
        tag="video",
        takes=JobQuestion,
        answer=JobStatus,
        errors=(400, 401, 404, 413, 415, 429, 503),
    ),
    Endpoint(
        "POST",
        "/job_result",
        "job_result_post",
        "What a job has found, for clients that only post",
        tag="video",
        takes=JobResultQuestion,
        answer=VideoResult,
        errors=(400, 401, 404, 409, 413, 415, 429, 500, 503),
    ),
    Endpoint(
        "POST",
        "/cancel_job",
        "cancel_job_post",
        "Stops a job, for clients that only post",
        tag="video",
        takes=JobQuestion,
        answer=JobStatus,
        errors=(400, 401, 404, 413, 415, 429, 503),
    ),
    Endpoint(
        "POST",
        "/v1/chat/completions",
        "chat_completions",
        "OpenAI's chat completions",
        answer_chat,
        listed="POST - OpenAI chat completions",
        tag="openai",
        takes=ChatRequest,
        answer=ChatCompletion,
        events=("message",),
        errors=(404, *ASKING),
    ),
    Endpoint(
        "GET",
        "/v1/models",
        "models",
        "The served model",
        answer_models,
        listed="GET - The served model, for OpenAI clients",
        tag="openai",
        answer=ModelList,
        errors=(401, 429, 503),
    ),
    Endpoint(
        "GET",
        "/v1/models/{name:path}",
        "model",
        "The served model, by its name",
        answer_model,
        tag="openai",
        answer=ModelCard,
        errors=(401, 404, 429, 503),
    ),
    Endpoint("GET", "/livez", "livez", "Whether the process is sound", is_open=True, errors=(503,)),
    Endpoint("GET", "/readyz", "readyz", "Whether requests are answered", is_open=True, errors=(503,)),
    Endpoint("GET", "/healthz", "healthz", "Whether the process is sound", is_open=True, errors=(503,)),
    Endpoint("GET", "/docs.json", "docs", "This document", docs, answer="object", errors=(401, 429)),
    Endpoint("GET", "/metrics", "metrics", "Prometheus", prometheus, answer="text", errors=(401, 429)),
)

OPEN_PATHS = frozenset(endpoint.path for endpoint in ENDPOINTS if endpoint.is_open)
"""What `GET` answers to anybody, as the table spells it."""
UPLOAD_PATH = "/process_video"
"""Whose forms are written to the disk as they come."""
QUIET = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
"""Routes that machines ask all the time: no line of the log for them."""
OTHER = "other"
"""How metrics call a path that is none of ours."""

_PATTERNS = tuple((compile_path(path)[0], path) for path in dict.fromkeys(endpoint.path for endpoint in ENDPOINTS))


@cache
def listed() -> dict[str, str]:
    """Path to description, for people who ask what there is."""
    return {endpoint.path: endpoint.listed for endpoint in ENDPOINTS if endpoint.listed}


def route_of(scope: Scope) -> str:
    """The path of the endpoint that a request matches; a bounded set, whatever strangers ask for."""
    return next((path for pattern, path in _PATTERNS if pattern.match(scope["path"])), OTHER)


def is_open(scope: Scope) -> bool:
    """Whether a request is answered to anybody: probes, what this is, and the page."""
    return scope["method"] in ("GET", "HEAD") and route_of(scope) in OPEN_PATHS

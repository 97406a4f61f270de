"""`POST /process_video` and what there is of a job: `GET /jobs/{id}`, its result and its events, `DELETE`."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast, get_args

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from sa2va_bento.errors import BadRequestError
from sa2va_bento.jobs.desk import JobDesk
from sa2va_bento.jobs.files import JobFiles
from sa2va_bento.jobs.job import Job, JobRequest
from sa2va_bento.media.videos.selection import Selection
from sa2va_bento.settings import Settings
from sa2va_bento.web.access import OWNER
from sa2va_bento.web.body import parse_json_object, read_fields
from sa2va_bento.web.jobs import exports, rendering
from sa2va_bento.web.jobs.events import JobEvents
from sa2va_bento.web.jobs.schemas import JobQuestion, JobResultQuestion, VideoRequest
from sa2va_bento.web.jobs.upload import Upload, digest_of, receive
from sa2va_bento.web.request import MOST_CHARACTERS_A_TOKEN, check_turns, known_adapter
from sa2va_bento.web.runtime import Runtime
from sa2va_bento.web.schemas import MaskFormat, parse_fields
from sa2va_bento.web.sse import EventStream

FRAMES_SEEN_COUNT = 5
"""As upstream: `sa2va_bento.model.tracking.FRAMES_SEEN`."""
LOOK_S = 0.05
"""Between two looks whether a job that is waited for has ended."""
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

Asked = TypeVar("Asked", bound=JobQuestion)


async def answer_process_video(request: Request, runtime: Runtime) -> Response:
    """Accepts a video and its prompts as a job: 202 and where it is; 200 and the result, where that is waited for and
    comes in time.

    Raises:
        Sa2VAError: whatever is wrong with it.
    """
    desk, key = runtime.jobs, _idempotency_key(request)
    await asyncio.to_thread(desk.check_room, _length(request))
    job_id, files = await asyncio.to_thread(desk.new_files)
    try:
        upload = await receive(request, files.input, runtime.settings)
        wanted, warnings = parse_fields(VideoRequest, upload.fields)
        asked = to_job_request(wanted, upload, warnings, runtime.settings)
        job = await asyncio.to_thread(desk.submit, job_id, _owner(request), asked, digest_of(upload), key)
    except BaseException:
        await asyncio.to_thread(files.remove)
        raise
    wait_s = _wait_s(request, wanted, runtime.settings)
    job = await _waited(desk, job, wait_s)
    if job.state.is_final and wait_s:
        finished = desk.finished(job)
        body = await asyncio.to_thread(rendering.result, finished, wanted.mask_format)
        return Response(body, headers=_headers(job, wait_s), media_type="application/json")
    return _status(job, 202, wait_s)


async def answer_job(request: Request, runtime: Runtime) -> Response:
    """Where a job stands."""
    return _status(await _job(request, runtime))


async def answer_job_result(request: Request, runtime: Runtime) -> Response:
    """What a job has found, as JSON or in one of the other formats.

    Raises:
        NotFinishedError: it has not ended.
        JobFailedError: it failed.
    """
    job, query = await _job(request, runtime), request.query_params
    files, name = runtime.jobs.finished(job), query.get("format", "json")
    mask_format = _mask_format(query.get("mask_format"), job)
    start, end = _number(query.get("start"), "start") or 0, _number(query.get("end"), "end")
    if name == "json":
        body = await asyncio.to_thread(rendering.result, files, mask_format, start, end)
        return Response(body, media_type="application/json")
    if name == "ndjson":
        lines = rendering.ndjson(files, mask_format, start, end)
        return StreamingResponse(lines, media_type="application/x-ndjson")
    export = exports.EXPORTS.get(name)
    if export is None:
        raise BadRequestError(f"format: one of json, ndjson, {', '.join(exports.EXPORTS)}")
    path = await asyncio.to_thread(_made, files, job, export, runtime.settings)
    return FileResponse(path, media_type=export.media_type, filename=f"{job.id}-{export.file}")


async def answer_job_events(request: Request, runtime: Runtime) -> Response:
    """What a job says and finds, as it comes; `Last-Event-ID` goes on where a reader was."""
    job, query = await _job(request, runtime), request.query_params
    mask_format = _mask_format(query.get("mask_format"), job)
    last_seen = request.headers.get("last-event-id", "") or query.get("last_event_id", "")
    events = JobEvents(runtime.jobs, job, mask_format, last_seen, runtime.settings.heartbeat_s)
    return EventStream(events.stream(), lambda: None)


async def answer_job_delete(request: Request, runtime: Runtime) -> Response:
    """Stops a job, within a frame; removes one that has ended."""
    job = await _job(request, runtime)
    left = await asyncio.to_thread(runtime.jobs.cancel, job)
    return _status(left, 202) if left else Response(status_code=204)


async def answer_job_post(request: Request, runtime: Runtime) -> Response:
    """`answer_job` for clients that only post; the id comes in the body."""
    asked = await _asked(request, JobQuestion, runtime.settings)
    return _status(await asyncio.to_thread(runtime.jobs.job, asked.job_id, _owner(request)))


async def answer_job_result_post(request: Request, runtime: Runtime) -> Response:
    """`answer_job_result` as JSON for clients that only post."""
    asked, desk = await _asked(request, JobResultQuestion, runtime.settings), runtime.jobs
    job = await asyncio.to_thread(desk.job, asked.job_id, _owner(request))
    files, mask_format = desk.finished(job), _mask_format(asked.mask_format, job)
    body = await asyncio.to_thread(rendering.result, files, mask_format, asked.start, asked.end)
    return Response(body, media_type="application/json")


async def answer_job_cancel_post(request: Request, runtime: Runtime) -> Response:
    """Stops a job, as `DELETE` does, for clients that only post; one that has ended stays as it is."""
    asked, desk = await _asked(request, JobQuestion, runtime.settings), runtime.jobs
    job = await asyncio.to_thread(desk.job, asked.job_id, _owner(request))
    left = job if job.state.is_final else await asyncio.to_thread(desk.cancel, job)
    return _status(left or job)


async def _asked(request: Request, schema: type[Asked], settings: Settings) -> Asked:
    fields = await read_fields(request, settings)
    return parse_fields(schema, parse_json_object(fields) if isinstance(fields, bytes) else fields)[0]


def to_job_request(wanted: VideoRequest, upload: Upload, warnings: list[str], settings: Settings) -> JobRequest:
    """A validated request as the job that is stored.

    Raises:
        BadRequestError: fields that do not go together, or a limit of the service.
    """
    prompts = tuple(wanted.prompts) if wanted.prompts else (wanted.prompt,) if wanted.prompt else ()
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise BadRequestError("prompt: field required" if not prompts else "prompt: empty")
    if wanted.prompts and wanted.prompt:
        raise BadRequestError("prompt: give it or prompts, not both")
    if wanted.end_s is not None and wanted.end_s <= wanted.start_s:
        raise BadRequestError("end_s: must be after start_s")
    check_turns(wanted.history)
    texts = [*prompts, *(turn.content for turn in wanted.history)]
    if sum(map(len, texts)) > settings.max_prompt_tokens * MOST_CHARACTERS_A_TOKEN:
        raise BadRequestError(f"prompt: over the limit of {settings.max_prompt_tokens} tokens")
    seen = wanted.frames_seen if isinstance(wanted.frames_seen, str) else tuple(sorted(set(wanted.frames_seen)))
    count = wanted.frames_seen_count or min(FRAMES_SEEN_COUNT, settings.max_frames_seen)
    if max(count, 0 if isinstance(seen, str) else len(seen)) > settings.max_frames_seen:
        raise BadRequestError(f"frames_seen: at most {settings.max_frames_seen} frames")
    turns = tuple((turn.role, turn.content) for turn in wanted.history)
    return JobRequest(
        prompts=prompts,
        histories=(turns,) * len(prompts),
        files=tuple(upload.files),
        selection=Selection(wanted.start_s, wanted.end_s, wanted.every_nth, wanted.fps, wanted.max_frames),
        frames_seen=seen,
        frames_seen_count=count,
        mask_threshold=wanted.mask_threshold,
        mask_format=wanted.mask_format,
        max_new_tokens=wanted.max_new_tokens,
        warnings=tuple(warnings),
        mode=wanted.mode,
        selected=tuple(wanted.selected),
        adapter=known_adapter(wanted.adapter, settings),
    )


async def _job(request: Request, runtime: Runtime) -> Job:
    return await asyncio.to_thread(runtime.jobs.job, request.path_params["job_id"], _owner(request))


def _owner(request: Request) -> str:
    return str(request.scope.get("state", {}).get(OWNER, ""))


def _status(job: Job, status: int = 200, wait_s: float = 0) -> Response:
    body = rendering.status_of(job).model_dump_json()
    return Response(body, status, _headers(job, wait_s), media_type="application/json")


def _headers(job: Job, wait_s: float) -> dict[str, str]:
    applied = {"Preference-Applied": f"wait={wait_s:g}"} if wait_s else {}
    return {"Location": f"/jobs/{job.id}", **applied}


async def _waited(desk: JobDesk, job: Job, wait_s: float) -> Job:
    """The job once it has ended, or as it is after `wait_s`."""
    until = asyncio.get_running_loop().time() + wait_s
    while not job.state.is_final and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(LOOK_S)
        job = await asyncio.to_thread(desk.job, job.id, job.owner)
    return job


def _wait_s(request: Request, wanted: VideoRequest, settings: Settings) -> float:
    """What the client would wait (RFC 7240 4.3), as far as a request may last."""
    match = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", ",".join(request.headers.getlist("prefer")))
    asked = float(match[1]) if match else wanted.wait
    return min(asked, settings.timeout_s)


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise BadRequestError("Idempotency-Key: 1 to 255 visible ASCII characters")
    return key


def _length(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 16 else 0


def _mask_format(given: str | None, job: Job) -> MaskFormat:
    chosen = given or job.request.mask_format
    if chosen not in get_args(MaskFormat):
        raise BadRequestError(f"mask_format: one of {', '.join(get_args(MaskFormat))}")
    if chosen == "probability" and job.request.mask_format != "probability":
        raise BadRequestError("mask_format: probabilities are kept only where the job was started with them")
    return cast(MaskFormat, chosen)


def _number(given: str | None, name: str) -> int | None:
    if given is None:
        return None
    if not given.isdecimal() or len(given) > 9:
        raise BadRequestError(f"{name}: a number of a frame, from 0")
    return int(given)


def _made(files: JobFiles, job: Job, export: "exports.Export", settings: Settings) -> Path:
    make: Callable[[Path], None] = lambda path: export.make(files, job, settings, path)  # noqa: E731
    return files.made(export.file, make)

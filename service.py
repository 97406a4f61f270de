"""The BentoML face of Sa2VA: `bentoml serve service:Sa2VA`."""

from collections.abc import AsyncGenerator

import bentoml
from starlette.requests import Request
from starlette.responses import Response

from sa2va_bento.web import logs, protocol, shutdown, startup, tracing, workers
from sa2va_bento.web.app import build_app
from sa2va_bento.web.bentoml_descriptors import (
    EventOutput,
    HealthOutput,
    JobInput,
    JobOutput,
    JobResultInput,
    JobResultOutput,
    NoInput,
    ProcessInput,
    ProcessOutput,
    VideoInput,
    VideoOutput,
)
from sa2va_bento.web.endpoints import listed
from sa2va_bento.web.errors import answering_errors
from sa2va_bento.web.gate import Gate
from sa2va_bento.web.health import answer_health
from sa2va_bento.web.jobs.routes import (
    answer_job_cancel_post,
    answer_job_post,
    answer_job_result_post,
    answer_process_video,
)
from sa2va_bento.web.middleware import middlewares, outer_middlewares
from sa2va_bento.web.process import answer_process, answer_process_stream
from sa2va_bento.web.runtime import Runtime

startup.follow_supervisor()
startup.share_folder()
settings = startup.settings_or_exit()
count = workers.worker_count(settings)
workers.share_gpus(count)
startup.configure_logging(settings.log_level)
logs.use(settings.log_format)
runtime = Runtime(workers.for_this_worker(settings))


@bentoml.asgi_app(build_app(runtime), path="/")
@bentoml.service(
    name="sa2va",
    resources={"gpu": 1},
    workers=count,
    traffic={
        "timeout": settings.timeout_s + 10,  # a backstop: the service's own deadline (504) comes first
        # what BentoCloud scales on; nothing here enforces it
        "concurrency": 16 if settings.slots == "auto" else settings.slots,
    },
    logging={"access": {"enabled": False}},  # one line of our own, with the request's id
    tracing={"excluded_urls": ["livez", "readyz", "metrics"]},
    metrics={"enabled": False},  # BentoML's are labelled by whatever path a stranger asks for
    http={"port": 3303},
)
class Sa2VA:
    """Answers prompts about pictures with text and masks."""

    def __init__(self) -> None:
        runtime.start()

    @bentoml.on_deployment
    @staticmethod
    def supervise() -> None:
        """Runs once in the supervisor, before the worker starts."""
        startup.supervise()

    @bentoml.on_shutdown
    def close(self) -> None:
        """Stops the model."""
        runtime.close()
        tracing.flush()

    @bentoml.api(input_spec=ProcessInput, output_spec=ProcessOutput)
    async def process(self, request: Request) -> Response:
        """Answers a prompt about a picture with text and one mask for each object it points at."""
        return await answering_errors(lambda unread: answer_process(unread, runtime))(request)

    @bentoml.api(input_spec=ProcessInput, output_spec=EventOutput)
    async def process_stream(self, request: Request) -> AsyncGenerator[Response]:
        """The same, answered as server-sent events while the model works."""
        yield await answering_errors(lambda unread: answer_process_stream(unread, runtime))(request)

    @bentoml.api(input_spec=VideoInput, output_spec=VideoOutput)
    async def process_video(self, request: Request) -> Response:
        """Accepts a video and prompts about it as a job, and says where that is."""
        return await answering_errors(lambda unread: answer_process_video(unread, runtime))(request)

    @bentoml.api(input_spec=JobInput, output_spec=JobOutput)
    async def job(self, request: Request) -> Response:
        """Where a job stands."""
        return await answering_errors(lambda unread: answer_job_post(unread, runtime))(request)

    @bentoml.api(input_spec=JobResultInput, output_spec=JobResultOutput)
    async def job_result(self, request: Request) -> Response:
        """What a job has found."""
        return await answering_errors(lambda unread: answer_job_result_post(unread, runtime))(request)

    @bentoml.api(input_spec=JobInput, output_spec=JobOutput)
    async def cancel_job(self, request: Request) -> Response:
        """Stops a job."""
        return await answering_errors(lambda unread: answer_job_cancel_post(unread, runtime))(request)

    @bentoml.api(input_spec=NoInput, output_spec=HealthOutput)
    async def health(self, request: Request) -> Response:
        """What is running; 503 until the model is ready."""
        return answer_health(runtime, listed())

    async def __is_ready__(self) -> bool:
        return runtime.is_ready

    async def __is_alive__(self) -> bool:
        return runtime.is_alive


for middleware, options in middlewares(settings):
    Sa2VA.add_asgi_middleware(middleware, **options)
startup.settle_tracing(Sa2VA)
if startup.is_worker():
    protocol.install(settings, Gate(runtime, outer_middlewares))
    shutdown.install(runtime)

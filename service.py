"""The BentoML face of Sa2VA: `bentoml serve service:Sa2VA`."""

import bentoml
from starlette.requests import Request
from starlette.responses import Response

from sa2va_bento.web import protocol, shutdown, startup
from sa2va_bento.web.app import build_app
from sa2va_bento.web.bentoml_descriptors import HealthOutput, NoInput, ProcessInput, ProcessOutput
from sa2va_bento.web.endpoints import listed
from sa2va_bento.web.errors import answering_errors
from sa2va_bento.web.gate import Gate
from sa2va_bento.web.health import answer_health
from sa2va_bento.web.middleware import middlewares, outer_middlewares
from sa2va_bento.web.process import answer_process
from sa2va_bento.web.runtime import Runtime

startup.follow_supervisor()
startup.share_folder()
settings = startup.settings_or_exit()
startup.configure_logging(settings.log_level)
runtime = Runtime(settings)


@bentoml.asgi_app(build_app(runtime), path="/")
@bentoml.service(
    name="sa2va",
    resources={"gpu": 1},
    workers=1,
    traffic={"timeout": settings.timeout_s + 10},  # a backstop: the service's own deadline (504) comes first
    logging={"access": {"enabled": False}},  # one line of our own, with the request's id
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

    @bentoml.api(input_spec=ProcessInput, output_spec=ProcessOutput)
    async def process(self, request: Request) -> Response:
        """Answers a prompt about a picture with text and one mask for each object it points at."""
        return await answering_errors(lambda unread: answer_process(unread, runtime))(request)

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

"""What is running, and whether it is."""

from importlib.metadata import version

from starlette.responses import JSONResponse, Response

from sa2va_bento import __version__
from sa2va_bento.errors import NotReadyError
from sa2va_bento.web.runtime import Runtime
from sa2va_bento.web.schemas import HealthResponse

VERSIONS = {"sa2va_bento": __version__, "bentoml": version("bentoml"), "torch": version("torch")}


def answer_health(runtime: Runtime, endpoints: dict[str, str]) -> Response:
    """200 and what is running; 503 while the model loads or when it is gone."""
    try:
        model = runtime.model
    except NotReadyError as error:
        body = {"status": "error", "message": error.message, "error": error.message}
        return JSONResponse(body, error.status, {"Retry-After": str(error.retry_after_s)})
    running = HealthResponse(
        uptime=str(runtime.uptime),
        started_at=runtime.started_at.isoformat(),
        model_path=runtime.settings.model_name,  # no local path
        endpoints=endpoints,
        family=model.info.get("family", ""),
        device=model.info.get("device", ""),
        dtype=model.info.get("dtype", ""),
        versions=VERSIONS,
        queue_depth=model.queue_depth,
    )
    return JSONResponse(running.model_dump())

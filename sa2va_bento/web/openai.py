"""`POST /v1/chat/completions` and `GET /v1/models`, for OpenAI's clients."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sa2va_bento.errors import UnsupportedMediaError
from sa2va_bento.web.deadline import Deadline
from sa2va_bento.web.openai_answer import Answer
from sa2va_bento.web.openai_request import Chat, check_model
from sa2va_bento.web.openai_schemas import ModelCard, ModelList
from sa2va_bento.web.process import read_fields, unless_gone
from sa2va_bento.web.responses import guarded
from sa2va_bento.web.runtime import Runtime
from sa2va_bento.web.sse import EventStream
from sa2va_bento.web.watching import Watched


def openai_routes(runtime: Runtime) -> list[Route]:
    """The routes under `/v1`."""

    async def chat(request: Request) -> Response:
        return await answer_chat(request, runtime)

    async def models(_: Request) -> Response:
        return JSONResponse(ModelList(data=[served_model(runtime)]).model_dump())

    async def model(request: Request) -> Response:
        check_model(request.path_params["name"], runtime.settings)
        return JSONResponse(served_model(runtime).model_dump())

    return [
        Route("/v1/chat/completions", guarded(chat), methods=["POST"]),
        Route("/v1/models", guarded(models)),
        Route("/v1/models/{name:path}", guarded(model)),
    ]


def served_model(runtime: Runtime) -> ModelCard:
    """The model that answers. Raises NotReadyError until it can."""
    _ = runtime.model
    return ModelCard(id=runtime.settings.model_name, created=int(runtime.started_at.timestamp()))


async def answer_chat(request: Request, runtime: Runtime) -> Response:
    """Answers a conversation, at once or in chunks.

    Raises:
        Sa2VAError: whatever is wrong with it, or with us, before a stream begins.
    """
    settings, deadline = runtime.settings, Deadline.of(request, runtime.settings)
    async with deadline.kept():
        model = runtime.model
        body = await read_fields(request, settings)
        if not isinstance(body, bytes):
            raise UnsupportedMediaError("content type must be application/json")
        chat = await runtime.in_media_pool(lambda: Chat.from_body(body, settings))
        answer = Answer(request, runtime, chat)
        if not chat.request.stream:
            prediction = await unless_gone(request, model.submit(chat.wanted))
            rendered = await runtime.in_media_pool(lambda: answer.completion(prediction).model_dump_json())
            return Response(rendered, media_type="application/json")
        watched = Watched(model, chat.wanted)
    return EventStream(answer.events(watched.news(settings.heartbeat_s, deadline)), watched.cancel, deadline)

"""`POST /v1/chat/completions` and `GET /v1/models`, for OpenAI's clients."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sa2va_bento.web.accept import accept
from sa2va_bento.web.openai.exchange import ChatExchange, chat_events
from sa2va_bento.web.openai.request import check_model
from sa2va_bento.web.openai.schemas import ModelCard, ModelList
from sa2va_bento.web.runtime import Runtime
from sa2va_bento.web.sse import EventStream


async def answer_models(_: Request, runtime: Runtime) -> Response:
    """The served model, in a list."""
    return JSONResponse(ModelList(data=[_served_model(runtime)]).model_dump())


async def answer_model(request: Request, runtime: Runtime) -> Response:
    """The served model, by its name. Raises UnknownModelError where it is another."""
    check_model(request.path_params["name"], runtime.settings)
    return JSONResponse(_served_model(runtime).model_dump())


def _served_model(runtime: Runtime) -> ModelCard:
    """The model that answers. Raises NotReadyError until it can."""
    _ = runtime.model
    return ModelCard(id=runtime.settings.model_name, created=int(runtime.started_at.timestamp()))


async def answer_chat(request: Request, runtime: Runtime) -> Response:
    """Answers a conversation, at once or in chunks.

    Raises:
        Sa2VAError: whatever is wrong with it, or with us, before a stream begins.
    """
    exchange = await accept(request, runtime, ChatExchange)
    if not await exchange.begun():
        return Response(await exchange.whole(request), media_type="application/json")
    return EventStream(chat_events(exchange), exchange.cancel)

"""`POST /v1/chat/completions` and `GET /v1/models`, for OpenAI's clients."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sa2va_bento.web.accept import accept
from sa2va_bento.web.openai.exchange import ChatExchange, chat_events
from sa2va_bento.web.openai.request import served_as
from sa2va_bento.web.openai.schemas import ModelCard, ModelList
from sa2va_bento.web.runtime import Runtime
from sa2va_bento.web.sse import EventStream


async def answer_models(_: Request, runtime: Runtime) -> Response:
    """The served model and its adapters, in a list."""
    names = (None, *runtime.settings.named_adapters)
    return JSONResponse(ModelList(data=[_card(runtime, name) for name in names]).model_dump())


async def answer_model(request: Request, runtime: Runtime) -> Response:
    """The served model or one of its adapters, by name. Raises UnknownModelError where it is another."""
    return JSONResponse(_card(runtime, served_as(request.path_params["name"], runtime.settings)).model_dump())


def _card(runtime: Runtime, adapter: str | None) -> ModelCard:
    """The model that answers, or an adapter of it. Raises NotReadyError until it can."""
    _ = runtime.model
    name, created = runtime.settings.model_name, int(runtime.started_at.timestamp())
    return ModelCard(id=adapter or name, created=created, parent=name if adapter else None)


async def answer_chat(request: Request, runtime: Runtime) -> Response:
    """Answers a conversation, at once or in chunks.

    Raises:
        Sa2VAError: whatever is wrong with it, or with us, before a stream begins.
    """
    exchange = await accept(request, runtime, ChatExchange)
    if not await exchange.begun():
        return Response(await exchange.whole(request), media_type="application/json")
    return EventStream(chat_events(exchange), exchange.cancel)

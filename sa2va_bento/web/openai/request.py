"""From a validated chat completion request to the core's request."""

import secrets
from collections.abc import Mapping
from typing import cast

from sa2va_bento.errors import BadRequestError, UnknownModelError
from sa2va_bento.media.images import decode_image
from sa2va_bento.settings import Settings
from sa2va_bento.types import PredictRequest, RequestContext, Sampling
from sa2va_bento.web.openai.messages import Conversation, read_conversation
from sa2va_bento.web.openai.schemas import ChatRequest
from sa2va_bento.web.request import PictureSource, check_sizes, regions_to_masks

ADMINISTRATIVE = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "response_format",
        "safety_identifier",
        "service_tier",
        "store",
        "tool_choice",
        "user",
    }
)
"""Fields of OpenAI's that change nothing about an answer (two of them once `check_promises` has looked)."""
NOTHING: tuple[object, ...] = (None, False, 0, "", [], {})


def check_chat(request: ChatRequest, settings: Settings) -> Conversation:
    """The conversation of a request for the served model, whose sizes are within the limits.

    Raises:
        Sa2VAError: whatever is wrong with it.
    """
    adapter_of(request, settings)
    conversation = read_conversation(request.messages)
    texts = [conversation.prompt, *(turn.content for turn in conversation.history)]
    check_sizes(texts, request.regions, settings)
    return conversation


def check_promises(fields: Mapping[str, object]) -> None:
    """Refuses what a client relies on and this model can't do; what can be ignored is ignored with a warning.

    Raises:
        BadRequestError: a tool must be called, or the reply must be JSON.
    """
    if fields.get("tool_choice") not in (None, "none", "auto"):
        raise BadRequestError("tool_choice: this model calls no tools")
    wanted = fields.get("response_format")
    if isinstance(wanted, Mapping) and cast("Mapping[str, object]", wanted).get("type") not in (None, "text"):
        raise BadRequestError("response_format: this model writes text")


def without_noise(fields: Mapping[str, object]) -> dict[str, object]:
    """Without the fields that say nothing about the answer, or ask for what is done anyway."""
    return {
        name: value
        for name, value in fields.items()
        if name not in ADMINISTRATIVE and (name in ChatRequest.model_fields or value not in NOTHING)
    }


def adapter_of(request: ChatRequest, settings: Settings) -> str | None:
    """The adapter that a request's `model` names, None for the model itself.

    Raises:
        UnknownModelError: it is neither's.
    """
    return None if request.model is None else served_as(request.model, settings)


def served_as(name: str, settings: Settings) -> str | None:
    """The adapter of a name; None for the served model's name, that name's last part (`Sa2VA-4B` of
    `ByteDance/Sa2VA-4B`) and `sa2va`.

    Raises:
        UnknownModelError: it is another's.
    """
    adapter = settings.adapter_called(name)
    if adapter is None and not settings.is_model(name):
        raise UnknownModelError("model: not served here; GET /v1/models says which is")
    return adapter


def to_predict_request(
    request: ChatRequest,
    conversation: Conversation,
    source: PictureSource | None,
    settings: Settings,
    context: RequestContext,
) -> PredictRequest:
    """Decodes the picture and the regions of a request. Slow for large pictures: not for the event loop.

    Raises:
        Sa2VAError: whatever is wrong with them.
    """
    image = (
        decode_image(_bytes_of(source), settings.max_image_pixels, source.field, context.deadline) if source else None
    )
    if request.regions and image is None:
        raise BadRequestError("regions: they need a picture")
    return PredictRequest(
        prompt=conversation.prompt,
        image=image,
        regions=regions_to_masks(request.regions, image.size, context.deadline) if image else (),
        history=conversation.history,
        mask_threshold=request.mask_threshold,
        soft_masks=request.mask_format == "probability",
        max_new_tokens=request.max_completion_tokens or request.max_tokens,
        max_tiles=1 if conversation.detail == "low" else request.max_tiles,
        sampling=_sampling(request),
        stop=tuple(request.stop),
        adapter=adapter_of(request, settings),
        context=context,
    )


def _bytes_of(source: PictureSource) -> bytes:
    if not source.text.lstrip()[:8].lower().startswith(("data:", "http://", "https://")):
        raise BadRequestError(f"{source.field}: must be a data URL, or an http(s) URL where those are allowed")
    return source.bytes


def _sampling(request: ChatRequest) -> Sampling:
    if request.temperature == 0 or request.top_p == 0:  # the likeliest token alone
        return Sampling()
    seed = secrets.randbits(63) if request.seed is None else request.seed
    return Sampling(request.temperature, request.top_p, seed)

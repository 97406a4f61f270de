"""From the body of a chat completion request to the core's request."""

import secrets
from dataclasses import dataclass

from sa2va_bento.errors import BadRequestError, UnknownModelError
from sa2va_bento.media import decode_image
from sa2va_bento.result import PredictRequest, Sampling
from sa2va_bento.schemas import parse_fields
from sa2va_bento.settings import Settings
from sa2va_bento.web.conversation import Conversation, Picture, read_conversation
from sa2va_bento.web.conversion import check_sizes, picture_bytes, regions_to_masks
from sa2va_bento.web.openai_schemas import ChatRequest
from sa2va_bento.web.process import parse_json_object

ALIAS = "sa2va"
"""A name that every served model answers to."""


@dataclass(frozen=True)
class Chat:
    """A request as its client sent it, what was ignored of it, and as the model takes it."""

    request: ChatRequest
    warnings: tuple[str, ...]
    wanted: PredictRequest

    @classmethod
    def from_body(cls, body: bytes, settings: Settings) -> "Chat":
        """Parses and decodes. Slow for large pictures: not for the event loop.

        Raises:
            Sa2VAError: whatever is wrong with the request.
        """
        request, warnings = parse_fields(ChatRequest, parse_json_object(body))
        if request.model is not None:
            check_model(request.model, settings)
        conversation = read_conversation(request.messages)
        texts = [conversation.prompt, *(turn.content for turn in conversation.history)]
        check_sizes(texts, request.regions, settings)
        return cls(request, tuple(warnings), _wanted(request, conversation, settings))


def check_model(name: str, settings: Settings) -> None:
    """Accepts the served model's name, that name's last part (`Sa2VA-4B` of `ByteDance/Sa2VA-4B`) and `sa2va`.

    Raises:
        UnknownModelError: it is another's.
    """
    served = settings.model_name.rstrip("/").lower()
    if name.rstrip("/").lower() not in (served, served.rpartition("/")[2], ALIAS):
        raise UnknownModelError("model: not served here; GET /v1/models says which is")


def _wanted(request: ChatRequest, conversation: Conversation, settings: Settings) -> PredictRequest:
    picture = conversation.picture
    image = decode_image(_bytes_of(picture, settings), settings.max_image_pixels, picture.field) if picture else None
    if request.regions and image is None:
        raise BadRequestError("regions: they need a picture")
    return PredictRequest(
        prompt=conversation.prompt,
        image=image,
        regions=regions_to_masks(request.regions, image.size) if image else (),
        history=conversation.history,
        mask_threshold=request.mask_threshold,
        max_new_tokens=request.max_completion_tokens or request.max_tokens,
        max_tiles=1 if picture and picture.source.detail == "low" else request.max_tiles,
        sampling=_sampling(request),
        stop=tuple(request.stop),
    )


def _bytes_of(picture: Picture, settings: Settings) -> bytes:
    url = picture.source.url
    if not url.lstrip()[:8].lower().startswith(("data:", "http://", "https://")):
        raise BadRequestError(f"{picture.field}: must be a data URL, or an http(s) URL where those are allowed")
    return picture_bytes(url, settings, picture.field)


def _sampling(request: ChatRequest) -> Sampling:
    if request.temperature == 0 or request.top_p == 0:  # the likeliest token alone
        return Sampling()
    seed = secrets.randbits(63) if request.seed is None else request.seed
    return Sampling(request.temperature, request.top_p, seed)

"""OpenAI's chat completions as far as they are served, and what is added to them.

Added to a request: `mask_format`, `mask_threshold`, `regions`, `max_tiles`, as in `POST /process`. Added to an
answer's message (in a stream, to the last delta): `text` and `segments`.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from sa2va_bento.web.jobs.schemas import TrackOut
from sa2va_bento.web.schemas import MAX_REGIONS, MAX_TURNS, Count, MaskFormat, Number, Region, SegmentOut, Text

MAX_MESSAGES = 2 * MAX_TURNS
MAX_PARTS = 256
FinishReason = Literal["stop", "length"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class _Asked(_Model):
    """Part of a request: what is null is absent."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {key: item for key, item in cast("Mapping[str, object]", value).items() if item is not None}


class ImageUrl(_Asked):
    """Where a picture is."""

    url: Text = Field(
        min_length=1,
        description="A data URL, or an http(s) URL whose host the operator has listed",
        examples=["data:image/png;base64,iVBORw0KGgo="],
    )
    detail: Literal["auto", "low", "high", "original"] | None = Field(
        default="auto", description="`low` looks at the picture as one tile", examples=["auto"]
    )


class TextPart(_Asked):
    """Text of a message."""

    type: Literal["text"] = Field(default="text", description="What the part is")
    text: Text = Field(description="What is said", examples=["Please segment the red circle."])


class RefusalPart(_Asked):
    """An earlier refusal of some assistant, read as text."""

    type: Literal["refusal"] = Field(default="refusal", description="What the part is")
    refusal: Text = Field(description="What was said", examples=["I can't."])


def _as_object(url: object) -> object:
    return {"url": url} if isinstance(url, str) else url


class ImagePart(_Asked):
    """A picture of a message."""

    type: Literal["image_url"] = Field(default="image_url", description="What the part is")
    image_url: Annotated[ImageUrl, BeforeValidator(_as_object)] = Field(description="Where it is")


class VideoUrl(_Asked):
    """Where a video is."""

    url: Text = Field(min_length=1, description="A data URL", examples=["data:video/mp4;base64,AAAA"])


class VideoPart(_Asked):
    """A short video of a message."""

    type: Literal["video_url"] = Field(default="video_url", description="What the part is")
    video_url: Annotated[VideoUrl, BeforeValidator(_as_object)] = Field(description="Where it is")


def _part_type(part: object) -> str | None:
    given = cast("Mapping[str, object]", part) if isinstance(part, Mapping) else {"type": getattr(part, "type", None)}
    stated = given.get("type")
    return stated if isinstance(stated, str) else None


Part = Annotated[
    Annotated[TextPart, Tag("text")]
    | Annotated[ImagePart, Tag("image_url")]
    | Annotated[VideoPart, Tag("video_url")]
    | Annotated[RefusalPart, Tag("refusal")],
    Discriminator(
        _part_type, custom_error_type="part", custom_error_message="type must be text, image_url or video_url"
    ),
]


def _as_parts(content: object) -> object:
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _as_list(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


class Message(_Asked):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"] = Field(description="Who speaks", examples=["user"])
    content: Annotated[
        list[Part],
        Field(fail_fast=True),
        Field(max_length=MAX_PARTS),
        BeforeValidator(_as_parts, json_schema_input_type=str | list[Part] | None),
    ] = Field(default=[], description="Text, or parts of text and pictures", examples=["What is in the picture?"])


class StreamOptions(_Asked):
    """Options of a stream."""

    include_usage: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Ends the stream with a chunk of token counts", examples=[True]
    )


class ChatRequest(_Asked):
    """A request for a chat completion. Fields that are not listed are ignored with a warning."""

    model: Text | None = Field(
        default=None, description="The served model's name, its last part, or `sa2va`", examples=["sa2va-nano"]
    )
    messages: Annotated[list[Message], Field(fail_fast=True)] = Field(
        min_length=1, max_length=MAX_MESSAGES, description="Oldest first, the user's last"
    )
    max_completion_tokens: Count | None = Field(default=None, description="Most tokens of the reply", examples=[256])
    max_tokens: Count | None = Field(default=None, description="Old name of `max_completion_tokens`", examples=[256])
    stop: Annotated[
        list[Annotated[str, Field(strict=True, min_length=1, max_length=256)]],
        BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    ] = Field(default=[], max_length=4, description="Texts that end the reply where they begin", examples=[["\n"]])
    temperature: Number = Field(default=0, ge=0, le=2, description="0 takes the likeliest token", examples=[0])
    top_p: Number = Field(default=1, ge=0, le=1, description="Draws from the likeliest tokens only", examples=[1])
    seed: Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)] | None = Field(
        default=None, description="Makes draws repeatable; without one each answer draws anew", examples=[7]
    )
    n: Annotated[int, Field(strict=True, ge=1, le=1)] = Field(default=1, description="Answers; one", examples=[1])
    stream: Annotated[bool, Field(strict=True)] = Field(default=False, description="Asks for chunks", examples=[True])
    stream_options: StreamOptions = Field(default=StreamOptions(), description="Options of the stream")
    mask_format: MaskFormat = Field(default="rle", description="How masks are encoded", examples=["rle"])
    mask_threshold: Number = Field(
        default=0.5, ge=0, le=1, description="Probability above which a pixel belongs to a mask", examples=[0.5]
    )
    regions: Annotated[list[Region], Field(fail_fast=True)] = Field(
        default=[],
        description="Visual prompts; the messages speak of them as region1, region2, ...",
        examples=[[{"box": [100, 50, 200, 120]}]],
        max_length=MAX_REGIONS,
    )
    max_tiles: Count | None = Field(default=None, description="Most tiles the picture is cut into", examples=[12])
    include_overlay: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Ends the content with a Markdown picture (a data URL): the picture with its segments drawn in, "
        "for chat interfaces that show no masks",
        examples=[True],
    )


class PromptDetails(_Model):
    """What the prompt's tokens are."""

    image_tokens: int = Field(description="Tokens of the picture", examples=[256])


class ChatUsage(_Model):
    """Token counts."""

    prompt_tokens: int = Field(description="Tokens of the prompt, the picture's included", examples=[290])
    completion_tokens: int = Field(description="Tokens of the reply", examples=[8])
    total_tokens: int = Field(description="Prompt and reply", examples=[298])
    prompt_tokens_details: PromptDetails = Field(description="What the prompt's tokens are")


class AnswerMessage(_Model):
    """The reply."""

    role: Literal["assistant"] = Field(default="assistant", description="Who speaks")
    content: str = Field(description="With the markers `[SEG]` and `<p>..</p>`", examples=["Sure, [SEG]."])
    refusal: None = Field(default=None, description="Never given", examples=[None])
    text: str = Field(description="The prose without markers", examples=["Sure."])
    segments: list[SegmentOut] | list[TrackOut] = Field(
        description="One for each `[SEG]`, in order; of a video the tracks, with their frames"
    )


class Choice(_Model):
    """The one answer."""

    index: int = Field(default=0, description="Place among the answers; one", examples=[0])
    message: AnswerMessage = Field(description="The reply")
    finish_reason: FinishReason = Field(description="Why the reply ended", examples=["stop"])
    logprobs: None = Field(default=None, description="Never given", examples=[None])


class ChatCompletion(_Model):
    """The answer to a request."""

    id: str = Field(description="Holds the request's id", examples=["chatcmpl-4f1c0a"])
    object: Literal["chat.completion"] = Field(default="chat.completion", description="What this is")
    created: int = Field(description="Seconds since 1970", examples=[1737543716])
    model: str = Field(description="The model that answered", examples=["sa2va-nano"])
    choices: list[Choice] = Field(description="The one answer")
    usage: ChatUsage = Field(description="Token counts")
    system_fingerprint: str = Field(description="Version of the service", examples=["sa2va-bento-0.1.0"])
    warnings: list[str] = Field(description="What was ignored or adjusted", examples=[[]])


class ModelCard(_Model):
    """A served model."""

    id: str = Field(description="Its name", examples=["sa2va-nano"])
    object: Literal["model"] = Field(default="model", description="What this is")
    created: int = Field(description="When the service started, seconds since 1970", examples=[1737543716])
    owned_by: str = Field(default="sa2va", description="Always `sa2va`", examples=["sa2va"])
    parent: str | None = Field(default=None, description="Of an adapter, the model that it adapts", examples=[None])


class ModelList(_Model):
    """The served model, then its adapters."""

    object: Literal["list"] = Field(default="list", description="What this is")
    data: list[ModelCard] = Field(description="The model, and its adapters by name")

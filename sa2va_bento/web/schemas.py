"""What clients send and get as JSON, and the two functions between that and the core's own types.

Field names and shapes are the HTTP contract; the descriptions below are its documentation (`/docs.json`).
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from sa2va_bento.errors import BadRequestError

MaskFormat = Literal["rle", "png", "polygon", "probability", "none"]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True, ge=0)]


def _well_formed(text: str) -> str:
    """JSON can write half of a character (a lone surrogate), which no encoding can."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("holds half of a character") from None
    return text


Text = Annotated[str, Field(strict=True), AfterValidator(_well_formed)]
Parsed = TypeVar("Parsed", bound=BaseModel)
MAX_POLYGON_POINTS = 10_000
MAX_TURNS = 64
MAX_REGIONS = 1024
"""Whatever the operator allows."""
_MOST_NAMED = 8

EXAMPLE_PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAACAAAAAYAQMAAAChnW13AAAABlBMVEXr6+HcKCgEWEgZAAAAN0lEQVR42n3MoQ3A"
    "IABFwcsvAskI3X8qRkAiCGGApjxx8nHv6aI0UatoRbwRfOlbjCXmFGv8fw94PQj8uewEQgAAAABJRU5ErkJggg=="
)
"""A red circle on a light ground, 32 x 24 pixels."""


class Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class RleMask(Model):
    """A mask as COCO run lengths, column by column."""

    format: Literal["rle"] = Field(default="rle", description="What kind of mask this is")
    size: tuple[Whole, Whole] = Field(description="[height, width]", examples=[[480, 640]])
    counts: str = Field(
        description="Compressed run lengths in ASCII; `pycocotools.mask.decode` takes this object as it is",
        examples=["Q1??MI5Ja05"],
    )


class PngMask(Model):
    """A mask as a one-channel PNG."""

    format: Literal["png"] = Field(default="png", description="What kind of mask this is")
    size: tuple[Whole, Whole] = Field(description="[height, width]", examples=[[480, 640]])
    data: str = Field(
        description="Data URL of the PNG, 255 inside and 0 outside",
        examples=["data:image/png;base64,iVBORw0KGgo="],
    )


class PolygonPart(Model):
    """One connected part of a mask."""

    exterior: list[tuple[float, float]] = Field(
        description="Outline as [x, y] in pixels along pixel edges", examples=[[[10, 10], [20, 10], [15, 20]]]
    )
    holes: list[list[tuple[float, float]]] = Field(description="Outlines of its holes", examples=[[]])


class PolygonMask(Model):
    """A mask as outlines, simplified by one pixel at most."""

    format: Literal["polygon"] = Field(default="polygon", description="What kind of mask this is")
    size: tuple[Whole, Whole] = Field(description="[height, width]", examples=[[480, 640]])
    polygons: list[PolygonPart] = Field(description="Connected parts, in no particular order")


class ProbabilityMask(Model):
    """A mask before its cut, as a one-channel PNG."""

    format: Literal["probability"] = Field(default="probability", description="What kind of mask this is")
    size: tuple[Whole, Whole] = Field(description="[height, width]", examples=[[480, 640]])
    data: str = Field(
        description="Data URL of an 8-bit grey PNG: each pixel's probability, 255 is certain",
        examples=["data:image/png;base64,iVBORw0KGgo="],
    )


SegmentMask = Annotated[RleMask | PngMask | PolygonMask | ProbabilityMask, Field(discriminator="format")]


class RleRegion(Model):
    """A region's mask as COCO run lengths."""

    format: Literal["rle"] = Field(default="rle", description="May be left out")
    size: tuple[Whole, Whole] = Field(description="[height, width], the picture's", examples=[[480, 640]])
    counts: Text | Annotated[list[Annotated[int, Field(strict=True)]], Field(fail_fast=True)] = Field(
        description="Compressed run lengths (text) or the list of runs", examples=["Q1??MI5Ja05"]
    )


class PngRegion(Model):
    """A region's mask as a PNG of the picture's size; every pixel that is not black is inside."""

    format: Literal["png"] = Field(default="png", description="May be left out")
    data: Text = Field(description="Base64 or data URL of the PNG", examples=["data:image/png;base64,iVBORw0KGgo="])


def _mask_format(value: object) -> str | None:
    if isinstance(value, Mapping):
        given = cast("Mapping[str, object]", value)
        stated = given.get("format")
        return ("rle" if "counts" in given else "png") if stated is None else str(stated)
    return getattr(value, "format", None)


RegionMask = Annotated[
    Annotated[RleRegion, Tag("rle")] | Annotated[PngRegion, Tag("png")],
    Discriminator(_mask_format, custom_error_type="mask_format", custom_error_message="format must be rle or png"),
]


class Region(Model):
    """A visual prompt: exactly one of `box`, `polygon` and `mask`, in pixels of the picture as displayed."""

    box: tuple[Number, Number, Number, Number] | None = Field(
        default=None, description="[x, y, w, h]", examples=[[100, 50, 200, 120]]
    )
    polygon: Annotated[list[tuple[Number, Number]], Field(fail_fast=True)] | None = Field(
        default=None,
        description="Corners [x, y]; the last joins the first",
        examples=[[[10, 10], [200, 10], [90, 150]]],
        min_length=3,
        max_length=MAX_POLYGON_POINTS,
    )
    mask: RegionMask | None = Field(default=None, description="A mask of the picture's size")


class HistoryTurn(Model):
    """An earlier message of the conversation."""

    role: Literal["user", "assistant"] = Field(description="Who spoke", examples=["user"])
    content: Text = Field(description="What was said", examples=["What is in the picture?"])


class ProcessRequest(Model):
    """A picture, a prompt, and how to answer. Fields that are not listed are ignored with a warning."""

    base64Image: Text = Field(  # noqa: N815 - the name that the original's clients send
        min_length=1,
        description="The picture (JPEG, PNG, WebP, GIF, BMP or TIFF) as base64 or as a data URL. "
        "A multipart form may carry it as a file field `image` instead. "
        "An http:// or https:// URL is fetched where the operator has listed its host",
        examples=[EXAMPLE_PICTURE],
    )
    prompt: Text = Field(min_length=1, description="What to do or say", examples=["Please segment the red circle."])
    mask_format: MaskFormat = Field(default="rle", description="How masks are encoded", examples=["rle"])
    mask_threshold: Number = Field(
        default=0.5, ge=0, le=1, description="Probability above which a pixel belongs to a mask", examples=[0.5]
    )
    regions: Annotated[list[Region], Field(fail_fast=True)] = Field(
        default=[],
        description="Visual prompts; the prompt speaks of them as region1, region2, ...",
        examples=[[{"box": [10, 6, 12, 12]}]],
        max_length=MAX_REGIONS,
    )
    history: Annotated[list[HistoryTurn], Field(fail_fast=True)] = Field(
        default=[],
        description="Earlier turns, oldest first",
        examples=[[{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]],
        max_length=MAX_TURNS,
    )
    include_overlay: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Asks for `overlay`: the picture with each segment in a colour of its own, and a legend",
        examples=[True],
    )
    max_new_tokens: Count | None = Field(default=None, description="Most tokens of the reply", examples=[256])
    max_tiles: Count | None = Field(
        default=None, description="Most tiles the picture is cut into; fewer is faster and coarser", examples=[12]
    )
    adapter: Text | None = Field(
        default=None,
        max_length=64,
        description="Name of the adapter that answers, of those that `GET /v1/models` lists; the model itself where "
        "there is none",
        examples=[None],
    )


class ImageSize(Model):
    """Size of the picture as displayed, in pixels."""

    width: int = Field(examples=[640], description="Pixels across")
    height: int = Field(examples=[480], description="Pixels down")


class SegmentOut(Model):
    """One `[SEG]` of the reply; an empty mask is reported with area 0."""

    id: int = Field(description="Place in the reply, from 0", examples=[0])
    phrase: str | None = Field(description="What the reply calls it", examples=["the man"])
    text_span: tuple[int, int] | None = Field(
        description="Where `phrase` stands in `text`: [start, end)", examples=[[0, 7]]
    )
    score: float = Field(description="Predicted IoU of the mask, 0 to 1; not calibrated", examples=[0.93])
    object_score: float = Field(description="Probability that the object is visible at all", examples=[0.99])
    bbox: tuple[int, int, int, int] = Field(
        description="[x, y, w, h] in pixels, all 0 for an empty mask", examples=[[120, 40, 200, 310]]
    )
    area: int = Field(description="Pixels inside the mask", examples=[12345])
    threshold: float = Field(description="Probability at which the mask was cut", examples=[0.5])
    mask: SegmentMask | None = Field(description="The mask in the format asked for; null for `none`")


class UsageOut(Model):
    """Token counts."""

    prompt_tokens: int = Field(description="Tokens of the prompt, the picture's included", examples=[290])
    image_tokens: int = Field(description="Tokens of the picture", examples=[256])
    completion_tokens: int = Field(description="Tokens of the reply", examples=[8])
    total_tokens: int = Field(description="Prompt and reply", examples=[298])


class Timings(Model):
    """Milliseconds spent on a request, stage by stage: together they are the total."""

    receive: float = Field(default=0, description="Reading the body", examples=[1.2])
    queue: float = Field(default=0, description="Waiting, between the other stages too", examples=[0.4])
    image_decode: float = Field(
        default=0, description="Parsing the request, decoding its picture and regions", examples=[6.3]
    )
    preprocess: float = Field(default=0, description="Image processing and tokenising", examples=[5.8])
    encode: float = Field(default=0, description="The picture through the vision tower", examples=[30.1])
    prefill: float = Field(default=0, description="Reading the prompt", examples=[50.4])
    decode: float = Field(default=0, description="Writing the reply", examples=[31.0])
    segment: float = Field(default=0, description="SAM2, and masks at the picture's size", examples=[44.2])
    render: float = Field(default=0, description="Encoding masks and overlay", examples=[0.9])
    total: float = Field(default=0, description="From the arrival of the request to its answer", examples=[170.3])


class ProcessResponse(Model):
    """The answer to a request."""

    result: str = Field(description="The reply, markers `[SEG]` and `<p>..</p>` kept", examples=["Sure, [SEG]."])
    text: str = Field(description="The prose without markers", examples=["Sure."])
    model: str = Field(description="The model that answered", examples=["ByteDance/Sa2VA-1B"])
    request_id: str = Field(description="As in the `X-Request-ID` header", examples=["4f1c0a"])
    image: ImageSize | None = Field(description="Size of the picture")
    segments: list[SegmentOut] = Field(description="One for each `[SEG]`, in order")
    overlay: str | None = Field(
        default=None,
        description="Data URL of a PNG: the picture, its longer side brought within 256 to 2048 pixels, with its "
        "segments drawn in, numbered by `id`, and a legend with their phrases; null unless `include_overlay` is true",
        examples=["data:image/png;base64,iVBORw0KGgo="],
    )
    usage: UsageOut = Field(description="Token counts")
    finish_reason: Literal["stop", "length"] = Field(description="Why the reply ended", examples=["stop"])
    timings_ms: Timings = Field(description="Where the time went")
    warnings: list[str] = Field(description="What was ignored or adjusted", examples=[[]])


class ErrorResponse(Model):
    """Why there is no answer."""

    error: str = Field(description="What is wrong, for a person to read", examples=["prompt: field required"])
    request_id: str = Field(description="As in the `X-Request-ID` header", examples=["4f1c0a"])


class HealthErrorResponse(ErrorResponse):
    """Why the service is not ready."""

    status: Literal["error"] = Field(default="error", description="`running` once the model is ready")
    message: str = Field(description="As `error`", examples=["the model is still loading"])


class HealthResponse(Model):
    """What is running."""

    status: Literal["running"] = Field(default="running", description="`error`, with 503, until the model is ready")
    uptime: str = Field(description="Since the start", examples=["0:10:30"])
    started_at: str = Field(description="Local time", examples=["2025-01-22T23:41:56"])
    model_path: str = Field(description="The model", examples=["ByteDance/Sa2VA-1B"])
    endpoints: dict[str, str] = Field(description="What else there is", examples=[{"/health": "GET - ..."}])
    family: str = Field(default="", description="Architecture of the model", examples=["internvl"])
    device: str = Field(default="", description="Where it computes", examples=["cuda:0"])
    dtype: str = Field(default="", description="In which precision", examples=["bfloat16"])
    versions: dict[str, str] = Field(description="Of the software", examples=[{"torch": "2.13.0"}])
    queue_depth: int = Field(description="Requests accepted and not yet answered", examples=[0])


def parse_process_request(fields: Mapping[str, object]) -> tuple[ProcessRequest, list[str]]:
    """`parse_fields` of a request to `/process`."""
    return parse_fields(ProcessRequest, fields)


def parse_fields(schema: type[Parsed], fields: Mapping[str, object]) -> tuple[Parsed, list[str]]:
    """A validated request and the warnings about what it holds besides. A field that is null counts as absent.

    Raises:
        BadRequestError: naming each field that is missing or wrong.
    """
    try:
        request = schema.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        raise BadRequestError(describe(error, fields)) from None
    return request, _warnings(fields, schema)


def describe(error: ValidationError, fields: Mapping[str, object]) -> str:
    """The problems of a validation in one line, by field; no value of the client's is repeated, nor a name of ours."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    by_field: dict[str, str] = {}
    for problem in problems:
        by_field.setdefault(_field_name(problem["loc"], fields), _message(problem["msg"]))
    lines = [f"{name}: {message}" for name, message in by_field.items()]
    more = [f"and {len(lines) - _MOST_NAMED} more"] if len(lines) > _MOST_NAMED else []
    return "; ".join(lines[:_MOST_NAMED] + more)


def _message(said: str) -> str:
    return re.sub(r" or instance of \w+", "", said.removeprefix("Value error, ")).lower()


def _field_name(location: tuple[int | str, ...], fields: object) -> str:
    """The path of a value in the request as it came. Pydantic's also names the kinds of value that it tried."""
    name, value = "", fields
    for place, part in enumerate(location):
        if isinstance(part, int):
            if isinstance(value, list):
                name += f"[{part}]"
                items = cast("list[object]", value)
                value = items[part] if part < len(items) else None
        elif isinstance(value, Mapping):
            given = cast("Mapping[str, object]", value)
            if part in given or place == len(location) - 1:
                name += f".{part}" if name else part
                value = given.get(part)
    return name or "body"


def _warnings(fields: Mapping[str, object], schema: type[BaseModel]) -> list[str]:
    unknown = [name for name in fields if name not in schema.model_fields]
    lines = [f"unknown field ignored: {name[:64]!r}" for name in unknown[:_MOST_NAMED]]
    if len(unknown) > _MOST_NAMED:
        lines.append(f"{len(unknown) - _MOST_NAMED} more unknown fields ignored")
    return lines

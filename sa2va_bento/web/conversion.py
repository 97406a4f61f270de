"""From a validated request to the core's request, and from the core's prediction to the response."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from sa2va_bento import masks
from sa2va_bento.errors import BadRequestError, PayloadTooLargeError
from sa2va_bento.media import decode_base64, decode_image
from sa2va_bento.overlay import draw_overlay, encode_overlay
from sa2va_bento.regions import Size, box_to_mask, png_to_mask, polygon_to_mask, rle_to_mask
from sa2va_bento.result import Prediction, PredictRequest, Segment, Turn
from sa2va_bento.schemas import (
    HistoryTurn,
    ImageSize,
    MaskFormat,
    PngMask,
    PolygonMask,
    PolygonPart,
    ProcessRequest,
    ProcessResponse,
    Region,
    RleMask,
    RleRegion,
    SegmentOut,
    Timings,
    UsageOut,
)
from sa2va_bento.settings import Settings
from sa2va_bento.web.fetch import FetchPolicy, fetch, is_url

MOST_CHARACTERS_A_TOKEN = 16
"""Text longer than this many characters for each permitted token is refused before it is tokenised."""


def to_predict_request(request: ProcessRequest, settings: Settings) -> PredictRequest:
    """Decodes the picture and the regions of a request. Slow for large pictures: not for the event loop.

    Raises:
        BadRequestError: an empty prompt, an undecodable picture, a region that does not fit it.
        PayloadTooLargeError: too many pixels, or far too long a prompt.
        UnsupportedMediaError: a picture in an unsupported format.
    """
    _check_text(request, settings)
    image = decode_image(picture_bytes(request.base64Image, settings), settings.max_image_pixels)
    return PredictRequest(
        prompt=request.prompt,
        image=image,
        regions=regions_to_masks(request.regions, image.size),
        history=tuple(Turn(turn.role, turn.content) for turn in request.history),
        mask_threshold=request.mask_threshold,
        max_new_tokens=request.max_new_tokens,
        max_tiles=request.max_tiles,
    )


def picture_bytes(text: str, settings: Settings, field: str = "base64Image") -> bytes:
    """An encoded picture from its base64, its data URL, or its URL where the operator lists the host. It may block.

    Raises:
        BadRequestError: it is none of these, or can't be fetched.
        PayloadTooLargeError: it is fetched and larger than a body may be.
    """
    return fetch(text, FetchPolicy.of(settings), field) if is_url(text) else decode_base64(text, field)


def _check_text(request: ProcessRequest, settings: Settings) -> None:
    if not request.prompt.strip():
        raise BadRequestError("prompt: empty")
    _check_turns(request.history)
    check_sizes([request.prompt, *(turn.content for turn in request.history)], request.regions, settings)


def _check_turns(history: Sequence[HistoryTurn]) -> None:
    for i, turn in enumerate(history):
        if turn.role != ("user", "assistant")[i % 2]:
            raise BadRequestError(f"history[{i}].role: the turns must alternate, the user's first")
    if len(history) % 2:
        raise BadRequestError("history: the last turn must be the assistant's; the user's next is the prompt")


def check_sizes(texts: Iterable[str], regions: Sequence[Region], settings: Settings) -> None:
    """Refuses what need not be looked at to be refused.

    Raises:
        BadRequestError: too many regions.
        PayloadTooLargeError: far too much text.
    """
    if len(regions) > settings.max_regions:
        raise BadRequestError(f"regions: {len(regions)} of them, {settings.max_regions} at most are taken")
    if sum(map(len, texts)) > settings.max_prompt_tokens * MOST_CHARACTERS_A_TOKEN:
        raise PayloadTooLargeError(f"prompt: over the limit of {settings.max_prompt_tokens} tokens")


def regions_to_masks(regions: Sequence[Region], size: Size) -> tuple[masks.Mask, ...]:
    """A request's regions as masks (H, W) of a picture of `size` (W, H). Raises BadRequestError."""
    return tuple(region_to_mask(region, size, f"regions[{i}]") for i, region in enumerate(regions))


def region_to_mask(region: Region, size: Size, field: str) -> masks.Mask:
    """A region as a mask (H, W) of a picture of `size` (W, H).

    Raises:
        BadRequestError: it has not exactly one shape, or the shape does not fit the picture.
    """
    shapes = [name for name in ("box", "polygon", "mask") if getattr(region, name) is not None]
    if len(shapes) != 1:
        raise BadRequestError(f"{field}: give exactly one of box, polygon and mask")
    if region.box is not None:
        return box_to_mask(region.box, size, f"{field}.box")
    if region.polygon is not None:
        return polygon_to_mask(region.polygon, size, f"{field}.polygon")
    if isinstance(region.mask, RleRegion):
        return rle_to_mask(region.mask.size, region.mask.counts, size, f"{field}.mask")
    assert region.mask is not None
    return png_to_mask(region.mask.data, size, f"{field}.mask")


def to_response(
    prediction: Prediction,
    *,
    model: str,
    request_id: str,
    mask_format: MaskFormat = "rle",
    overlay_on: Image.Image | None = None,
    warnings: tuple[str, ...] = (),
    total_ms: float | None = None,
    encoded: Sequence[SegmentOut] = (),
) -> ProcessResponse:
    """Renders a prediction. Encoding masks takes time: not for the event loop.

    Args:
        prediction: The core's answer.
        model: How the model is called.
        request_id: As in the response's header.
        mask_format: How masks are encoded.
        overlay_on: The request's picture if an overlay was asked for.
        warnings: About the request itself; the prediction's own follow.
        total_ms: Time since the request arrived, if it was measured outside the core.
        encoded: The answer's first segments, if they were rendered before.
    """
    usage = prediction.usage
    return ProcessResponse(
        result=prediction.result,
        text=prediction.text,
        model=model,
        request_id=request_id,
        image=_image_size(prediction),
        segments=[*encoded, *to_segments(prediction.segments, mask_format, len(encoded))],
        overlay=encode_overlay(draw_overlay(overlay_on, prediction.segments)) if overlay_on else None,
        usage=UsageOut(
            prompt_tokens=usage.prompt_tokens,
            image_tokens=usage.image_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
        ),
        finish_reason=prediction.finish_reason,
        timings_ms=_timings(prediction.timings_ms, total_ms),
        warnings=[*warnings, *prediction.warnings],
    )


def _image_size(prediction: Prediction) -> ImageSize | None:
    if prediction.image_size is None:
        return None
    width, height = prediction.image_size
    return ImageSize(width=width, height=height)


def to_segments(segments: Sequence[Segment], mask_format: MaskFormat, start: int = 0) -> list[SegmentOut]:
    """Renders the segments from number `start` on. Encoding masks takes time: not for the event loop."""
    return [to_segment(i, segment, mask_format) for i, segment in enumerate(segments[start:], start)]


def to_segment(number: int, segment: Segment, mask_format: MaskFormat) -> SegmentOut:
    """Renders one segment. Encoding its mask takes time: not for the event loop."""
    return SegmentOut(
        id=number,
        phrase=segment.phrase,
        text_span=segment.text_span,
        score=round(segment.score, 4),
        object_score=round(segment.object_score, 4),
        bbox=masks.bounding_box(segment.mask),
        area=masks.area(segment.mask),
        threshold=segment.threshold,
        mask=encode_mask(segment.mask, mask_format),
    )


def encode_mask(mask: masks.Mask, mask_format: MaskFormat) -> RleMask | PngMask | PolygonMask | None:
    """A mask (H, W) in the format asked for; `none` gives None."""
    size = (mask.shape[0], mask.shape[1])
    match mask_format:
        case "rle":
            return RleMask(size=size, counts=masks.encode_rle(mask))
        case "png":
            return PngMask(size=size, data=masks.encode_png(mask))
        case "polygon":
            return PolygonMask(size=size, polygons=[_part(part) for part in masks.encode_polygons(mask)])
        case "none":
            return None


def _part(polygon: masks.Polygon) -> PolygonPart:
    return PolygonPart(exterior=_ring(polygon.exterior), holes=[_ring(hole) for hole in polygon.holes])


def _ring(points: masks.Points) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.round(points, 2)]


def _timings(measured: Mapping[str, float], total_ms: float | None) -> Timings:
    known = {name: round(value, 2) for name, value in measured.items() if name in Timings.model_fields}
    if total_ms is not None:
        known["total"] = round(total_ms, 2)
    return Timings(**known)

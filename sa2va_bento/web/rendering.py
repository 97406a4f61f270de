"""From the core's prediction to the response: masks in the format asked for, the overlay, the timings."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sa2va_bento.media import mask_formats as masks
from sa2va_bento.media.overlay.draw import draw_overlay, encode_overlay
from sa2va_bento.media.png import to_data_url
from sa2va_bento.types import Prediction, RequestContext, Segment, Stage
from sa2va_bento.web.schemas import (
    ImageSize,
    MaskFormat,
    PngMask,
    PolygonMask,
    PolygonPart,
    ProbabilityMask,
    ProcessResponse,
    RleMask,
    SegmentOut,
    Timings,
    UsageOut,
)


def to_response(
    prediction: Prediction,
    *,
    model: str,
    context: RequestContext,
    mask_format: MaskFormat = "rle",
    overlay_on: Image.Image | None = None,
    warnings: Sequence[str] = (),
    encoded: Sequence[SegmentOut] = (),
) -> ProcessResponse:
    """Renders a prediction. Encoding masks takes time: not for the event loop.

    Args:
        prediction: The core's answer.
        model: How the model is called.
        context: The request's.
        mask_format: How masks are encoded.
        overlay_on: The request's picture if an overlay was asked for.
        warnings: About the request itself; the prediction's own follow.
        encoded: The answer's first segments, if they were rendered before.
    """
    usage = prediction.usage
    segments = [*encoded, *to_segments(prediction.segments, mask_format, len(encoded))]
    overlay = encode_overlay(draw_overlay(overlay_on, prediction.segments)) if overlay_on else None
    context.lap(Stage.RENDER)
    return ProcessResponse(
        result=prediction.result,
        text=prediction.text,
        model=model,
        request_id=context.request_id,
        image=_image_size(prediction),
        segments=segments,
        overlay=overlay,
        usage=UsageOut(
            prompt_tokens=usage.prompt_tokens,
            image_tokens=usage.image_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
        ),
        finish_reason=prediction.finish_reason,
        timings_ms=_timings(context),
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
        mask=encode_mask(segment.mask, mask_format, segment.probability),
    )


def encode_mask(
    mask: masks.Mask, mask_format: MaskFormat, probability: NDArray[np.uint8] | None = None
) -> RleMask | PngMask | PolygonMask | ProbabilityMask | None:
    """A mask (H, W) in the format asked for; `none` gives None. Probabilities (H, W) are needed for theirs alone."""
    size = (mask.shape[0], mask.shape[1])
    match mask_format:
        case "rle":
            return RleMask(size=size, counts=masks.encode_rle(mask))
        case "png":
            return PngMask(size=size, data=masks.encode_png(mask))
        case "polygon":
            return PolygonMask(size=size, polygons=[_part(part) for part in masks.encode_polygons(mask)])
        case "probability":
            assert probability is not None
            return ProbabilityMask(size=size, data=to_data_url(Image.fromarray(probability)))
        case "none":
            return None


def _part(polygon: masks.Polygon) -> PolygonPart:
    return PolygonPart(exterior=_ring(polygon.exterior), holes=[_ring(hole) for hole in polygon.holes])


def _ring(points: masks.Points) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.round(points, 2)]


def _timings(context: RequestContext) -> Timings:
    return Timings(**{name: round(value, 2) for name, value in context.timings_ms.items()})

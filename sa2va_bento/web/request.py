"""From a validated request to the core's own: sizes checked, picture and regions decoded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sa2va_bento.errors import BadRequestError, PromptTooLongError
from sa2va_bento.media.deadline import check_deadline
from sa2va_bento.media.images import decode_base64, decode_image
from sa2va_bento.media.mask_formats import Mask
from sa2va_bento.media.regions import Size, box_to_mask, png_to_mask, polygon_to_mask, rle_to_mask
from sa2va_bento.settings import Settings
from sa2va_bento.types import PredictRequest, RequestContext, Turn
from sa2va_bento.web.fetch import NOT_FETCHED, is_url
from sa2va_bento.web.schemas import HistoryTurn, ProcessRequest, Region, RleRegion

MOST_CHARACTERS_A_TOKEN = 16
"""Text longer than this many characters for each permitted token is refused before it is tokenised."""


MOST_REGION_PIXELS = 200_000_000
"""Of all regions' masks, each of the picture's size: sixteen of 12 million, 200 MB."""
MOST_VERTICES = 20_000
"""Of all polygons."""


@dataclass(frozen=True)
class PictureSource:
    """Where a request's picture is: base64, a data URL or a URL, in which field, and what was fetched from there."""

    text: str
    field: str = "base64Image"
    fetched: bytes | None = None

    @property
    def bytes(self) -> bytes:
        """The encoded picture. Raises BadRequestError where there is none."""
        if self.fetched is not None:
            return self.fetched
        if is_url(self.text):
            raise BadRequestError(f"{self.field}: the URL {NOT_FETCHED}")
        return decode_base64(self.text, self.field)


def to_predict_request(
    request: ProcessRequest, source: PictureSource, settings: Settings, context: RequestContext
) -> PredictRequest:
    """Decodes the picture and the regions of a request. Slow for large pictures: not for the event loop.

    Raises:
        BadRequestError: an empty prompt, an undecodable picture, a region that does not fit it.
        PayloadTooLargeError: too many pixels, or (PromptTooLongError) far too long a prompt.
        UnsupportedMediaError: a picture in an unsupported format.
    """
    _check_text(request, settings)
    image = decode_image(source.bytes, settings.max_image_pixels, source.field, context.deadline)
    return PredictRequest(
        prompt=request.prompt,
        image=image,
        regions=regions_to_masks(request.regions, image.size, context.deadline),
        history=tuple(Turn(turn.role, turn.content) for turn in request.history),
        mask_threshold=request.mask_threshold,
        soft_masks=request.mask_format == "probability",
        max_new_tokens=request.max_new_tokens,
        max_tiles=request.max_tiles,
        adapter=known_adapter(request.adapter, settings),
        context=context,
    )


def known_adapter(name: str | None, settings: Settings) -> str | None:
    """The adapter of a name, None where none is asked for. Raises BadRequestError where there is no such adapter."""
    if name is None:
        return None
    if found := settings.adapter_called(name):
        return found
    known = ", ".join(settings.named_adapters) or "none"
    raise BadRequestError(f"adapter: not served here (served: {known})")


def _check_text(request: ProcessRequest, settings: Settings) -> None:
    known_adapter(request.adapter, settings)
    if not request.prompt.strip():
        raise BadRequestError("prompt: empty")
    check_turns(request.history)
    check_sizes([request.prompt, *(turn.content for turn in request.history)], request.regions, settings)


def check_turns(history: Sequence[HistoryTurn]) -> None:
    """Raises BadRequestError where the turns before a prompt do not alternate, the user's first."""
    for i, turn in enumerate(history):
        if turn.role != ("user", "assistant")[i % 2]:
            raise BadRequestError(f"history[{i}].role: the turns must alternate, the user's first")
    if len(history) % 2:
        raise BadRequestError("history: the last turn must be the assistant's; the user's next is the prompt")


def check_sizes(texts: Iterable[str], regions: Sequence[Region], settings: Settings) -> None:
    """Refuses what need not be looked at to be refused.

    Raises:
        BadRequestError: too many regions.
        PromptTooLongError: far too much text.
    """
    if len(regions) > settings.max_regions:
        raise BadRequestError(f"regions: {len(regions)} of them, {settings.max_regions} at most are taken")
    if sum(map(len, texts)) > settings.max_prompt_tokens * MOST_CHARACTERS_A_TOKEN:
        raise PromptTooLongError(f"prompt: over the limit of {settings.max_prompt_tokens} tokens")


def regions_to_masks(regions: Sequence[Region], size: Size, deadline: float | None = None) -> tuple[Mask, ...]:
    """A request's regions as masks (H, W) of a picture of `size` (W, H), until `deadline` (`time.monotonic()`).

    Raises:
        BadRequestError: one that is no region of the picture, or all of them cost more than regions may.
        DeadlineExceededError: the deadline has passed.
    """
    if len(regions) * size[0] * size[1] > MOST_REGION_PIXELS:
        millions = MOST_REGION_PIXELS // 10**6
        raise BadRequestError(f"regions: {len(regions)} masks of this picture have over {millions} million pixels")
    if sum(len(region.polygon or ()) for region in regions) > MOST_VERTICES:
        raise BadRequestError(f"regions: their polygons have over {MOST_VERTICES} corners")
    return tuple(region_to_mask(region, size, f"regions[{i}]", deadline) for i, region in enumerate(regions))


def region_to_mask(region: Region, size: Size, field: str, deadline: float | None = None) -> Mask:
    """A region as a mask (H, W) of a picture of `size` (W, H).

    Raises:
        BadRequestError: it has not exactly one shape, or the shape does not fit the picture.
        DeadlineExceededError: the deadline has passed.
    """
    check_deadline(deadline)
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
    return png_to_mask(region.mask.data, size, f"{field}.mask", deadline)

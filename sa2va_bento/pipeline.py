"""What happens to a request before and after the engine: prompt and pixels in, masks at the picture's size out.

Pure functions of their inputs and of a loaded checkpoint; threads and queues are `sa2va_bento.predictor`'s business.
"""

import time
from array import array
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass
from hashlib import blake2b

from sa2va_bento.engine.sequence import Generation, MaskLogits, PictureInput, Prefix, Sequence
from sa2va_bento.errors import BadRequestError, CheckpointError, PayloadTooLargeError
from sa2va_bento.masks import low_res_to_mask
from sa2va_bento.model.config import CheckpointConfig, InternVLConfig
from sa2va_bento.model.qwen_vl_config import QwenVLConfig
from sa2va_bento.model.tokenizer import PromptTokenizer
from sa2va_bento.patches import prepare_patches
from sa2va_bento.preprocess import PreparedPicture, prepare_picture
from sa2va_bento.prompt import SEG, TEMPLATES, PictureTokens, build_prompt, parse_reply
from sa2va_bento.result import Prediction, PredictRequest, Segment, Usage
from sa2va_bento.settings import Settings
from sa2va_bento.streaming import ReplyText
from sa2va_bento.workload import limits_of

PREPARE: Mapping[type[CheckpointConfig], Callable[..., PreparedPicture]] = {
    InternVLConfig: prepare_picture,
    QwenVLConfig: prepare_patches,
}
"""What a family makes of a picture, given its configuration, the picture, regions and the most tiles."""


@dataclass(frozen=True)
class Prepared:
    """A request as the engine takes it, and what is needed to finish it."""

    sequence: Sequence
    request: PredictRequest
    picture: PreparedPicture | None
    picture_tokens: PictureTokens | None


class Pipeline:
    """The two ends of the path, for one checkpoint.

    Raises:
        CheckpointError: the tokenizer does not belong to the language model.
    """

    def __init__(self, config: CheckpointConfig, tokenizer: PromptTokenizer, settings: Settings) -> None:
        self._config, self._tokenizer, self._settings = config, tokenizer, settings
        self._template = TEMPLATES[config.template]
        self._stop_ids = tokenizer.ids_of([*self._template.stop_words, tokenizer.eos_token])
        self._stop_words = tuple(word for word in self._template.stop_words if not tokenizer.ids_of([word]))
        """Those that this tokenizer has no token for: they end a reply as text does."""
        self._seg_id, self._image_token_id = self._id_of(SEG), self._id_of(self._template.image_token)
        self._context = limits_of(settings, config).context

    def _id_of(self, token: str) -> int:
        """Raises CheckpointError where the tokenizer lacks the token, or is another model's."""
        number, size = self._tokenizer.id_of(token), self._config.llm.vocab_size
        if number >= size:
            raise CheckpointError(f"the tokenizer gives {token} the id {number}, the language model has {size} tokens")
        return number

    def prepare(self, request: PredictRequest) -> Prepared:
        """Tokens and pixels of a request.

        Raises:
            BadRequestError: the prompt is empty, or there are regions but no picture or no model to read them.
            PayloadTooLargeError: the prompt has more tokens than the service or the model takes.
        """
        if not request.prompt.strip():
            raise BadRequestError("prompt is empty")
        if request.regions and request.image is None:
            raise BadRequestError("regions need a picture")
        if request.regions and not self._config.takes_regions:
            raise BadRequestError(f"regions: {self._config.family} checkpoints do not read visual prompts")
        picture = self._picture(request)
        tokens = self._picture_tokens(picture) if picture else None
        ids = self._tokenizer.encode(build_prompt(self._template, request.prompt, tokens, request.history))
        return Prepared(self._sequence(request, ids, picture), request, picture, tokens)

    def finish(self, prepared: Prepared, generation: Generation, ready: Items[Segment] = ()) -> Prediction:
        """The engine's answer as a prediction; its first segments may be `ready` already."""
        reply = parse_reply(self._tokenizer, generation.output_ids, (*prepared.request.stop, *self._stop_words))
        # A stop string may have cut off `[SEG]`s that were grounded.
        segments = (*ready, *self.segments(prepared, generation.output_ids, generation.masks, len(ready)))
        picture = prepared.picture
        return Prediction(
            result=reply.result,
            text=reply.text,
            segments=segments[: len(reply.phrases)],
            image_size=picture.size if picture else None,
            usage=Usage(
                prompt_tokens=len(prepared.sequence.prompt_ids),
                image_tokens=prepared.picture_tokens.total if prepared.picture_tokens else 0,
                completion_tokens=generation.completion_tokens,
            ),
            finish_reason=generation.finish_reason,
            timings_ms=generation.timings_ms,
            warnings=picture.warnings if picture else (),
        )

    def _picture(self, request: PredictRequest) -> PreparedPicture | None:
        if request.image is None:
            return None
        limits = [limit for limit in (request.max_tiles, self._settings.max_tiles) if limit]
        return PREPARE[type(self._config)](self._config, request.image, request.regions, min(limits, default=None))

    def _picture_tokens(self, picture: PreparedPicture) -> PictureTokens:
        regions = tuple(int(cells.sum()) for cells in picture.region_cells)
        return PictureTokens(sum(rows * columns for rows, columns in picture.grids), regions)

    def _sequence(self, request: PredictRequest, ids: list[int], picture: PreparedPicture | None) -> Sequence:
        limit = min(self._settings.max_prompt_tokens, self._context - 1)
        if len(ids) > limit:
            raise PayloadTooLargeError(f"the prompt has {len(ids)} tokens, at most {limit} are taken")
        most = self._settings.max_new_tokens
        return Sequence(
            prompt_ids=tuple(ids),
            picture=_picture_input(picture) if picture else None,
            max_new_tokens=min(request.max_new_tokens or most, most, self._context - len(ids)),
            stop_ids=self._stop_ids,
            sampling=request.sampling,
            ends_reply=self._ends_reply((*request.stop, *self._stop_words)),
            seg_id=self._seg_id,
            prefix=self._prefix(ids, picture) if picture else None,
            deadline=time.monotonic() + self._settings.timeout_s,
        )

    def _prefix(self, ids: list[int], picture: PreparedPicture) -> Prefix:
        """The prompt up to the last token of the picture itself; what its regions add comes later."""
        places = [place for place, token in enumerate(ids) if token == self._image_token_id]
        length = places[sum(rows * columns for rows, columns in picture.grids) - 1] + 1
        return Prefix(f"{picture.tiles_key}/{blake2b(array('I', ids[:length]), digest_size=16).hexdigest()}", length)

    def _ends_reply(self, stop: tuple[str, ...]) -> Callable[[list[int]], bool]:
        """Looks for stop strings in the reply's last tokens: as many as the longest has bytes, so that none is missed
        however it is cut into tokens."""
        if not stop:
            return lambda output_ids: False
        reach = max(len(text.encode()) for text in stop)
        return lambda output_ids: any(text in self._tokenizer.decode(output_ids[-reach:]) for text in stop)

    def segments(
        self, prepared: Prepared, output_ids: Items[int], masks: Items[MaskLogits], start: int = 0
    ) -> tuple[Segment, ...]:
        """The segments from number `start` on, at the picture's size, of a reply that may still be growing."""
        if prepared.picture is None:
            return ()
        phrases = parse_reply(self._tokenizer, output_ids).phrases
        side, size = self._config.sam2_shape.image_size, prepared.picture.size
        threshold = prepared.request.mask_threshold
        return tuple(
            Segment(
                mask=low_res_to_mask(found.logits, side, size, threshold),
                score=found.score,
                object_score=found.object_score,
                threshold=threshold,
                phrase=phrase.text if phrase else None,
                text_span=phrase.span if phrase else None,
            )
            for found, phrase in list(zip(masks, phrases, strict=False))[start:]
        )

    def reply_text(self, request: PredictRequest) -> ReplyText:
        """The decoder of a reply that is watched as it comes."""
        return ReplyText(self._tokenizer, (*request.stop, *self._stop_words))


def _picture_input(picture: PreparedPicture) -> PictureInput:
    return PictureInput(
        key=picture.key,
        tiles_key=picture.tiles_key,
        tile_count=picture.tile_count,
        load_tiles=lambda: picture.tiles().numpy(),
        load_sam_pixels=lambda: picture.sam_pixels().numpy(),
        grids=picture.grids,
        region_cells=tuple(cells.numpy() for cells in picture.region_cells),
    )

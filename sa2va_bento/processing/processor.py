"""What happens to a request before and after the engine: prompt and pixels in, masks at the picture's size out.

Functions of their inputs and of a loaded checkpoint; threads and queues are `sa2va_bento.predictor`'s business.
"""

import time
from array import array
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items
from dataclasses import replace
from hashlib import blake2b
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sa2va_bento.clips import Clip, ClipRequest, FramesSeen
from sa2va_bento.engine.sequence import Generation, MaskLogits, Prefix, Sequence
from sa2va_bento.errors import BadRequestError, CheckpointError, PromptTooLongError
from sa2va_bento.model.adapters import NO_ADAPTERS, Adapters
from sa2va_bento.model.chat_template import SEG
from sa2va_bento.model.clip_sampling import ClipPlan
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.model.pixels import sam_pixels
from sa2va_bento.model.registry import family_of
from sa2va_bento.processing.detokenizer import Detokenizer
from sa2va_bento.processing.masks import low_res_to_mask, low_res_to_soft_mask
from sa2va_bento.processing.prompt import build_prompt
from sa2va_bento.processing.reply import Phrase, ReplyParser
from sa2va_bento.processing.video import join_frames
from sa2va_bento.settings import Settings
from sa2va_bento.types import Picture, Prediction, PredictRequest, Segment, Usage


class Processor:
    """The two ends of the path, for one checkpoint. `context` is what the engine has room for, the settings' unless
    given.

    Raises:
        CheckpointError: the tokenizer does not belong to the language model.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        tokenizer: PromptTokenizer,
        settings: Settings,
        context: int | None = None,
        adapters: Adapters = NO_ADAPTERS,
    ) -> None:
        self._adapters = adapters
        self._config, self._tokenizer, self._settings = config, tokenizer, settings
        self._template, self._image_processor = config.chat_template, family_of(config).image_processor
        self._sampling = family_of(config).clips
        self._stop_ids = tokenizer.ids_of([*self._template.stop_words, tokenizer.eos_token])
        self._stop_words = tuple(word for word in self._template.stop_words if not tokenizer.ids_of([word]))
        """Those that this tokenizer has no token for: they end a reply as text does."""
        self._seg_id, self.image_token_id = self._id_of(SEG), self._id_of(self._template.image_token)
        self._context = context or min(settings.wanted_context, config.llm.max_position_embeddings)

    def _id_of(self, token: str) -> int:
        """Raises CheckpointError where the tokenizer lacks the token, or is another model's."""
        number, size = self._tokenizer.id_of(token), self._config.llm.vocab_size
        if number >= size:
            raise CheckpointError(f"the tokenizer gives {token} the id {number}, the language model has {size} tokens")
        return number

    def prepare(self, request: PredictRequest) -> Sequence:
        """Tokens and pixels of a request, as the engine takes them.

        Raises:
            BadRequestError: the prompt is empty, or there are regions but no picture or no model to read them.
            PromptTooLongError: the prompt has more tokens than the service or the model takes.
        """
        if not request.prompt.strip():
            raise BadRequestError("prompt is empty")
        if request.regions and request.image is None:
            raise BadRequestError("regions need a picture")
        if request.regions and not self._config.takes_regions:
            raise BadRequestError(f"regions: {self._config.family} checkpoints do not read visual prompts")
        if request.adapter and request.adapter not in self._adapters.names:
            raise BadRequestError(f"adapter: not served here (served: {', '.join(self._adapters.names) or 'none'})")
        picture = self._seen_by(request.adapter, self._picture(request))
        ids = self._tokenizer.encode(build_prompt(self._template, request.prompt, picture, request.history))
        return self._sequence(request, ids, picture)

    def segments(
        self, request: PredictRequest, picture: Picture, masks: Items[MaskLogits], phrases: Items[Phrase | None]
    ) -> tuple[Segment, ...]:
        """Segments at the picture's size, one for each mask that has its entry in `phrases`."""
        return tuple(
            self.segment(found, picture.size, request.mask_threshold, request.soft_masks, phrase)
            for found, phrase in zip(masks, phrases, strict=False)
        )

    def segment(
        self,
        found: MaskLogits,
        size: tuple[int, int],
        threshold: float,
        is_soft: bool = False,
        phrase: Phrase | None = None,
    ) -> Segment:
        """What SAM2 says of one `[SEG]` as a segment of a picture of `size` (W, H)."""
        side, soft = self._config.sam2_shape.image_size, None
        if is_soft:
            mask, soft = low_res_to_soft_mask(found.logits, side, size, threshold)
        else:
            mask = low_res_to_mask(found.logits, side, size, threshold)
        return Segment(
            mask=mask,
            score=found.score,
            object_score=found.object_score,
            threshold=threshold,
            phrase=phrase.text if phrase else None,
            text_span=phrase.span if phrase else None,
            probability=soft,
        )

    def sam_pixels(self, image: Image.Image) -> NDArray[np.float32]:
        """A frame as SAM2 reads it: (3, M, M)."""
        return sam_pixels(image, self._config.sam2_shape.image_size).numpy()

    @property
    def frames_seen(self) -> FramesSeen:
        """Which frames of a clip the checkpoint was trained to see."""
        is_spread = getattr(self._config.sam2, "has_tuned_decoder", False)
        return FramesSeen.UNIFORM if is_spread else FramesSeen.FIRST

    def plan_clip(self, request: ClipRequest) -> ClipPlan | None:
        """How a clip is sampled; None where some of its frames are shown as they are.

        Raises:
            BadRequestError: what is asked for is not this checkpoint's.
        """
        if self._sampling is None:
            if request.mode or request.selected:
                raise BadRequestError(f"mode: {self._config.family} checkpoints have no sampling modes")
            return None
        mode = request.mode or self._sampling.modes[0]
        if mode not in self._sampling.modes:
            raise BadRequestError(f"mode: one of {', '.join(self._sampling.modes)}")
        if request.seen is not FramesSeen.MODEL:
            raise BadRequestError(f"frames_seen: {self._config.family} checkpoints sample a clip by its mode")
        frames = request.clip.count()
        if not frames:
            raise BadRequestError("video: there is no frame in what was asked for")
        return self._sampling.plan(frames, mode, request.selected)

    def clip_pictures(self, samples: Iterable[Image.Image]) -> tuple[Image.Image, ...]:
        """What the language model sees of a clip that is sampled."""
        assert self._sampling
        return tuple(self._sampling.pictures(samples))

    def length_told(self, clip: Clip) -> int | None:
        """How many frames a short clip has, where the grounding encoder asks: SAM3 tells time by it, up to the pointers
        that it looks back to."""
        sam = self._config.sam2
        if not sam.enable_temporal_pos_encoding_for_object_pointers:
            return None
        counted = sum(1 for _ in islice(clip.frames(), sam.max_object_pointers_in_encoder))
        return counted if counted < sam.max_object_pointers_in_encoder else None

    def finish(
        self,
        request: PredictRequest,
        sequence: Sequence,
        generation: Generation,
        parser: ReplyParser,
        ready: Items[Segment] = (),
    ) -> Prediction:
        """The engine's answer as a prediction; its first segments may be `ready` already."""
        reply, picture, start = parser.finish(generation.output_ids), sequence.picture, len(ready)
        rest: tuple[Segment, ...] = ()
        if picture:
            rest = self.segments(request, picture, generation.masks[start:], reply.phrases[start:])
        return Prediction(
            result=reply.result,
            text=reply.text,
            segments=(*ready[: len(reply.phrases)], *rest),  # a stop string may cut off `[SEG]`s that were grounded
            image_size=picture.size if picture else None,
            usage=Usage(
                prompt_tokens=len(sequence.prompt_ids),
                image_tokens=picture.all_tokens if picture else 0,
                completion_tokens=generation.completion_tokens,
            ),
            finish_reason=generation.finish_reason,
            timings_ms=generation.timings_ms,
            warnings=picture.warnings if picture else (),
        )

    def reply_parser(self, request: PredictRequest) -> ReplyParser:
        """What takes the reply to a request apart."""
        most = 1 if self._config.is_one_object else None
        return ReplyParser(self._tokenizer, (*request.stop, *self._stop_words), most)

    def detokenizer(self, request: PredictRequest) -> Detokenizer:
        """What decodes a reply that is watched as it comes."""
        return Detokenizer(self._tokenizer, (*request.stop, *self._stop_words))

    def _picture(self, request: PredictRequest) -> Picture | None:
        if request.frames:
            most = self._config.tiles_per_frame
            prepare = self._sampling.picture if self._sampling else self._image_processor
            return join_frames([prepare(self._config, frame, (), most) for frame in request.frames])
        if request.image is None:
            return None
        limits = [limit for limit in (request.max_tiles, self._settings.max_tiles) if limit]
        return self._image_processor(self._config, request.image, request.regions, min(limits, default=None))

    def _sequence(self, request: PredictRequest, ids: list[int], picture: Picture | None) -> Sequence:
        limit = min(self._settings.max_prompt_tokens, self._context - 1)
        if len(ids) > limit:
            raise PromptTooLongError(f"the prompt has {len(ids)} tokens, at most {limit} are taken")
        most, deadline = self._settings.max_new_tokens, request.context.deadline
        return Sequence(
            prompt_ids=tuple(ids),
            picture=picture,
            max_new_tokens=min(request.max_new_tokens or most, most, self._context - len(ids)),
            stop_ids=self._stop_ids,
            sampling=request.sampling,
            ends_reply=self._ends_reply((*request.stop, *self._stop_words)),
            seg_id=self._seg_id,
            prefix=self._prefix(ids, picture, request.adapter) if picture and not picture.is_clip else None,
            adapter=request.adapter,
            deadline=time.monotonic() + self._settings.timeout_s if deadline is None else deadline,
            context=request.context,
            may_wait=request.context.may_wait,
        )

    def _seen_by(self, adapter: str | None, picture: Picture | None) -> Picture | None:
        """The picture, named so that nobody takes what an adapter has of its own for the model's, or another's."""
        if picture is None or adapter is None:
            return picture
        key, tiles_key = (
            self._adapters.picture_key(adapter, picture.key),
            self._adapters.tiles_key(adapter, picture.tiles_key),
        )
        return replace(picture, key=key, tiles_key=tiles_key)

    def _prefix(self, ids: list[int], picture: Picture, adapter: str | None) -> Prefix:
        """The prompt up to the last token of the picture itself; what its regions add comes later."""
        places = [place for place, token in enumerate(ids) if token == self.image_token_id]
        length = places[picture.image_tokens * picture.frames - 1] + 1
        tokens = blake2b(array("I", ids[:length]), digest_size=16).hexdigest()
        return Prefix(f"{picture.tiles_key}/{tokens}/{adapter or ''}", length)

    def _ends_reply(self, stop: tuple[str, ...]) -> Callable[[list[int]], bool]:
        """Looks for stop strings in the reply's last tokens: as many as the longest has bytes, so that none is missed
        however it is cut into tokens."""
        if not stop:
            return lambda output_ids: False
        reach = max(len(text.encode()) for text in stop)
        return lambda output_ids: any(text in self._tokenizer.decode(output_ids[-reach:]) for text in stop)

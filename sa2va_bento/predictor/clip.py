"""A clip's way through the predictor: the questions about it are answered side by side, then all that they name is
followed together. Runs in the caller's thread, which reads frames and makes masks while the engine looks at others.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

from PIL import Image

from sa2va_bento import metrics
from sa2va_bento.clips import (
    ClipFrame,
    ClipQuestion,
    ClipReply,
    ClipRequest,
    ClipWatcher,
    FrameSegments,
    FramesSeen,
    Track,
)
from sa2va_bento.engine.sequence import Generation, MaskLogits, Sequence
from sa2va_bento.engine.thread import EngineThread
from sa2va_bento.engine.tracking import FRAMES_TOGETHER, LONG, ClipTracking, FramePixels
from sa2va_bento.errors import BadRequestError, InferenceError, RequestCancelledError
from sa2va_bento.model.clip_sampling import ClipPlan
from sa2va_bento.processing.detokenizer import Detokenizer
from sa2va_bento.processing.processor import Processor
from sa2va_bento.processing.reply import ReplyParser
from sa2va_bento.processing.video import frames_to_show
from sa2va_bento.types import PredictRequest, Usage

logger = logging.getLogger(__name__)

WINDOW = FRAMES_TOGETHER + 2
"""Frames of a clip that are alive at once, between the file and their masks: those of a step, and what is made ready
meanwhile."""

PATIENCE_S = 0.5
"""Between two looks whether a clip is still wanted."""
NO_IMAGE = Image.new("RGB", (1, 1))
"""In place of a frame's picture, which is not needed any more."""

JoinPrompts = Callable[[list[Any]], Any]


class ClipTask:
    """One clip on its way.

    Raises:
        Sa2VAError: from `run`, whatever is wrong with the request, or with us.
    """

    def __init__(
        self,
        request: ClipRequest,
        watcher: ClipWatcher,
        processor: Processor,
        engine: EngineThread,
        join_prompts: JoinPrompts,
    ) -> None:
        self._request, self._watcher = request, watcher
        self._processor, self._engine, self._join_prompts = processor, engine, join_prompts
        self._size: tuple[int, int] = (0, 0)
        self._is_over = False
        self._through: Future[None] | None = None
        self._found: dict[int, Future[tuple[MaskLogits, ...]]] = {}
        self._alive: deque[tuple[ClipFrame, Future[tuple[MaskLogits, ...]]]] = deque()

    def run(self) -> None:
        """Answers the request, telling the watcher as it goes."""
        plan = self._processor.plan_clip(self._request)
        frames = iter(self._request.clip.frames())
        seen = [] if plan else self._read(frames, self._frames_shown())
        images = self._sample(frames, plan) if plan else tuple(frame.image for frame in seen)
        self._size = seen[0].image.size if seen else self._size
        generations = self._generate(images)
        tracks = [track for _, reply in generations for track in reply.tracks]
        if tracks:
            prompts = self._join_prompts([generation.prompts[: len(reply.tracks)] for generation, reply in generations])
            del images
            clip = self._tracking(prompts, frozenset(frame.index for frame in seen), plan)
            self._track(self._in_order(seen, frames), clip)

    def _sample(self, frames: Iterator[ClipFrame], plan: ClipPlan) -> tuple[Image.Image, ...]:
        """What the language model sees of a clip that is sampled; few frames are alive at a time."""

        def samples() -> Iterator[Image.Image]:
            waiting = deque(plan.samples)
            for frame in frames:
                self._check_wanted()
                self._size = frame.image.size
                while waiting and waiting[0] == frame.index:
                    yield frame.image
                    waiting.popleft()
                if not waiting:
                    return

        return self._processor.clip_pictures(samples())

    def _tracking(self, prompts: Any, shown: frozenset[int], plan: ClipPlan | None) -> ClipTracking:
        """The objects as the engine follows them."""
        return ClipTracking(
            prompts,
            shown,
            on_frame=lambda index, masks: self._found.pop(index).set_result(masks),
            is_cancelled=self._request.is_cancelled,
            context=self._request.context,
            length=self._processor.length_told(self._request.clip) or LONG,
            parts=plan.parts if plan else None,
            adapter=self._request.adapter,
            leaves_memory=plan is None or plan.follows,
        )

    def _frames_shown(self) -> tuple[int, ...]:
        request, seen = self._request, self._request.seen
        seen = self._processor.frames_seen if seen is FramesSeen.MODEL else seen
        needs_length = seen is not FramesSeen.FIRST
        return frames_to_show(seen, request.seen_count, request.clip.count() if needs_length else request.seen_count)

    def _read(self, frames: Iterator[ClipFrame], shown: tuple[int, ...]) -> list[ClipFrame]:
        """The frames that the language model sees; of a shorter clip, all that there are."""
        found: list[ClipFrame] = []
        for frame in frames:
            self._check_wanted()
            if frame.index in shown:
                found.append(frame)
            if frame.index >= shown[-1]:
                break
        if not found:
            raise BadRequestError("video: there is no frame in what was asked for")
        return found

    def _generate(self, images: tuple[Image.Image, ...]) -> list[tuple[Generation, ClipReply]]:
        """All replies; as each is complete the watcher is told."""
        begun = [self._ask(number, question, images) for number, question in enumerate(self._request.questions)]
        try:
            answers, first = [], 0
            for number, (sequence, parser, future) in enumerate(begun):
                generation = self._result(future)
                reply = self._reply(number, sequence, parser, generation, first)
                first += len(reply.tracks)
                answers.append((generation, reply))
                self._watcher.on_reply(reply)
            return answers
        finally:
            self._is_over = True  # what is still running is not wanted any more

    def _ask(
        self, number: int, question: ClipQuestion, images: tuple[Image.Image, ...]
    ) -> tuple[Sequence, ReplyParser, "Future[Generation]"]:
        request = PredictRequest(
            question.prompt,
            history=question.history,
            frames=images,
            max_new_tokens=self._request.max_new_tokens,
            adapter=self._request.adapter,
            context=self._request.context,
        )
        sequence = self._processor.prepare(request)
        sequence.is_cancelled = lambda: self._is_over or self._request.is_cancelled()
        sequence.deadline = float("inf")  # the job's own limits hold
        sequence.listener = _TextListener(number, self._processor.detokenizer(request), self._watcher)
        return sequence, self._processor.reply_parser(request), self._engine.submit(sequence)

    def _result(self, future: "Future[Any]") -> Any:
        """Waits for the engine. Nobody waits for a clip that is not wanted, nor for one that has come to its end."""
        through = self._through
        while not wait([future], timeout=PATIENCE_S).done:
            self._check_wanted()
            if through and through.done() and not future.done():
                through.result()
                raise InferenceError("the clip ended before its frames")
        return future.result()

    def _reply(
        self, number: int, sequence: Sequence, parser: ReplyParser, generation: Generation, first: int
    ) -> ClipReply:
        reply, picture = parser.finish(generation.output_ids), sequence.picture
        assert picture
        metrics.prompt_tokens.inc(len(sequence.prompt_ids))
        metrics.generation_tokens.inc(generation.completion_tokens)
        return ClipReply(
            question=number,
            result=reply.result,
            text=reply.text,
            tracks=tuple(
                Track(first + i, number, phrase.text if phrase else None, phrase.span if phrase else None)
                for i, phrase in enumerate(reply.phrases)
            ),
            usage=Usage(len(sequence.prompt_ids), picture.all_tokens, generation.completion_tokens),
            finish_reason=generation.finish_reason,
        )

    def _track(self, frames: Iterator[ClipFrame], clip: ClipTracking) -> None:
        """Feeds the engine a window of frames at a time, and makes masks of what comes back."""
        self._through = through = self._engine.track(clip)
        try:
            for frame in frames:
                self._check_wanted()
                while len(self._alive) >= WINDOW:
                    self._finish_frame()
                pixels = self._processor.sam_pixels(frame.image)
                masks = self._found[frame.index] = Future[tuple[MaskLogits, ...]]()
                self._alive.append((replace(frame, image=NO_IMAGE), masks))
                self._engine.feed(clip, FramePixels(frame.index, pixels))
                while self._alive and self._alive[0][1].done():
                    self._finish_frame()
            while self._alive:
                self._finish_frame()
        except BaseException:
            clip.is_cancelled = lambda: True
            raise
        finally:
            self._engine.feed(clip, None)
        self._result(through)

    def _in_order(self, seen: list[ClipFrame], rest: Iterator[ClipFrame]) -> Iterator[ClipFrame]:
        """The frames that the masks start from, then the others: `rest`, where the former are the clip's first, or a
        second reading of it."""
        shown = {frame.index for frame in seen}
        if not shown or max(shown) >= len(shown):
            rest = (frame for frame in self._request.clip.frames() if frame.index not in shown)
        while seen:
            yield seen.pop(0)
        yield from rest

    def _finish_frame(self) -> None:
        """Turns the oldest frame's logits into segments and tells the watcher."""
        frame, future = self._alive.popleft()
        masks = self._result(future)
        request, processor = self._request, self._processor
        segments = tuple(
            processor.segment(low, self._size, request.mask_threshold, request.soft_masks) for low in masks
        )
        self._watcher.on_frame(FrameSegments(frame.index, frame.source_index, frame.time_s, self._size, segments))

    def _check_wanted(self) -> None:
        if self._request.is_cancelled():
            raise RequestCancelledError("cancelled")


class _TextListener:
    """Passes a growing reply on as text."""

    def __init__(self, number: int, detokenizer: Detokenizer, watcher: ClipWatcher) -> None:
        self._number, self._detokenizer, self._watcher = number, detokenizer, watcher

    def on_token(self, token: int) -> None:
        if text := self._detokenizer.push(token):
            self._watcher.on_text(self._number, text)

    def on_masks(self, sequence: Sequence) -> None:
        raise AssertionError("nothing is grounded on a clip as a whole")

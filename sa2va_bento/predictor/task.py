"""One request's way through the predictor, from its exchange to its answer, whichever threads do it."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace
from typing import Generic, TypeVar

from sa2va_bento import metrics
from sa2va_bento.engine.runner import Runner
from sa2va_bento.engine.sequence import Generation, MaskLogits, Sequence
from sa2va_bento.engine.thread import EngineThread
from sa2va_bento.errors import DeadlineExceededError, InferenceError, RequestCancelledError, Sa2VAError
from sa2va_bento.processing.processor import Processor
from sa2va_bento.processing.workers import SerialQueue, WorkerPool
from sa2va_bento.types import Exchange, Prediction, Segment, SegmentReady, Stage, StreamEvent, TextDelta

logger = logging.getLogger(__name__)

Rendered = TypeVar("Rendered")


class Task(Generic[Rendered]):
    """One request on its way: read and prepared by a worker, generated on the engine's thread, finished and rendered by
    a worker. Whatever goes wrong ends in its `answer`. It is the sequence's listener where the answer is watched."""

    def __init__(
        self,
        exchange: Exchange[Rendered],
        processor: Processor,
        runner: Runner,
        engine: EngineThread,
        workers: WorkerPool,
    ) -> None:
        self.answer: Future[Rendered] = Future()
        self._exchange, self._context = exchange, exchange.context
        self._processor, self._runner, self._engine = processor, runner, engine
        self._workers = workers
        self._segments: tuple[Segment, ...] = ()
        self._told = ""
        self.is_out_of_memory = False

    def prepare(self) -> None:
        """By a worker: pixels and prompt, then over to the engine."""
        self._context.lap(Stage.QUEUE)
        try:
            self._check_wanted()
            request = self._exchange.read()
            self._context.lap(Stage.IMAGE_DECODE)
            self._check_wanted()
            sequence = self._sequence = self._processor.prepare(request)
            self._request = replace(request, image=None, regions=())  # the picture's pixels are its processor's now
            sequence.pinned = self._runner.pin(sequence.picture)
            if sequence.picture:
                sequence.picture.tiles.prepare(sequence.picture.tiles_key in sequence.pinned)
            self._context.lap(Stage.PREPROCESS)
            self._check_wanted()
            self._start(sequence)
            if sequence.picture:  # while the language model reads
                sequence.picture.sam_pixels.prepare(sequence.picture.key in sequence.pinned)
        except BaseException as error:
            self._fail(error)

    def _check_wanted(self) -> None:
        """Raises where nobody waits for the answer any more: nothing runs on past its deadline."""
        if self.answer.cancelled():
            raise RequestCancelledError("cancelled")
        if self._context.left_s <= 0:
            raise DeadlineExceededError("no answer in time")

    def on_token(self, token: int) -> None:
        self._tell_text(self._detokenizer.push(token))

    def on_masks(self, sequence: Sequence) -> None:
        ids, masks = tuple(sequence.output_ids), sequence.masks
        self._in_worker(lambda: self._show_segments(ids, masks))

    def _start(self, sequence: Sequence) -> None:
        self._parser = self._processor.reply_parser(self._request)
        sequence.is_cancelled = self.answer.cancelled
        self._is_watched = self._is_told = self._exchange.begin()
        if self._is_watched:
            self._detokenizer = self._processor.detokenizer(self._request)
            self._queue = SerialQueue(self._workers)
            sequence.listener = self
        self._engine.submit(sequence).add_done_callback(lambda done: self._in_worker(lambda: self._finish(done)))

    def _in_worker(self, work: Callable[[], None]) -> None:
        try:
            if self._is_watched:
                self._queue.submit(work)
            else:  # the one job there is
                self._workers.submit(work, first=True)
        except RuntimeError as error:  # the pool has closed meanwhile
            self._fail(error)

    def _show_segments(self, ids: tuple[int, ...], masks: tuple[MaskLogits, ...]) -> None:
        start, picture = len(self._segments), self._sequence.picture
        try:
            phrases = self._parser.phrases(ids)
            if picture:
                self._segments += self._processor.segments(self._request, picture, masks[start:], phrases[start:])
        except BaseException as error:
            self._fail(error)
        for index, segment in enumerate(self._segments[start:], start):
            self._tell(SegmentReady(index, segment))

    def _finish(self, generated: "Future[Generation]") -> None:
        try:
            generation = generated.result()
            self._context.lap(Stage.QUEUE)
            self._check_wanted()
            prediction = self._predict(generation)
            self._check_wanted()
            if self._is_watched:
                self._tell_text(prediction.result.removeprefix(self._told))
            rendered = self._exchange.render(prediction)
        except BaseException as error:
            self._fail(error)
            return
        _count(self._sequence, prediction)
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_result(rendered)

    def _predict(self, generation: Generation) -> Prediction:
        prediction = self._processor.finish(self._request, self._sequence, generation, self._parser, self._segments)
        self._context.lap(Stage.SEGMENT)
        return prediction.with_timings(self._context.timings_ms)

    def _tell_text(self, text: str) -> None:
        if text:
            self._told += text
            self._tell(TextDelta(text))

    def _tell(self, event: StreamEvent) -> None:
        if not self._is_told:
            return
        try:
            self._exchange.tell(event)
        except Exception:  # a watcher that breaks does not break the engine
            logger.exception("request %s: its watcher failed", self._context.request_id)
            self._is_told = False

    def _fail(self, error: BaseException) -> None:
        self.is_out_of_memory = isinstance(error, MemoryError)
        if not isinstance(error, Sa2VAError):
            logger.error("request %s failed", self._context.request_id, exc_info=error)
            error = InferenceError("the request failed")
        error.__traceback__ = error.__context__ = None  # whose frames keep whole pictures alive
        with suppress(InvalidStateError):  # cancelled, or failed before
            self.answer.set_exception(error)


def _count(sequence: Sequence, prediction: Prediction) -> None:
    """Adds an answer to the counters."""
    usage, context = prediction.usage, sequence.context
    metrics.requests_total.inc()
    metrics.prompt_tokens.inc(usage.prompt_tokens)
    metrics.generation_tokens.inc(usage.completion_tokens)
    metrics.segments.inc(len(prediction.segments))
    for stage, seconds in context.seconds.items():
        metrics.stage_seconds.labels(stage).observe(seconds)
    if sequence.first_token_at is not None:
        metrics.time_to_first_token.observe(sequence.first_token_at - context.arrived)
    if usage.completion_tokens > 1:
        decoding = context.seconds.get(Stage.DECODE, 0.0)
        metrics.time_per_output_token.observe(decoding / (usage.completion_tokens - 1))
